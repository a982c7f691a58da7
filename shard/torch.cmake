# LibTorch as imported targets, from the PyPI wheel or any folder with include/ and lib/.
#
# find_package(Torch) of the CUDA build insists on nvcc and a GPU architecture, which host code does
# not need; the libraries themselves link without either.
#   MRP_TORCH_DIR  folder with include/ and lib/ (default: the torch package of MRP_PYTHON)
#   defines        mrp_torch, mrp_nccl (when NCCL and CUDA headers are there; MRP_WITH_NCCL is set)
set(MRP_TORCH_DIR "" CACHE PATH "LibTorch: folder with include/ and lib/")
if(NOT MRP_PYTHON)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  set(MRP_PYTHON ${Python3_EXECUTABLE} CACHE FILEPATH "" FORCE)
endif()
if(NOT MRP_TORCH_DIR)
  execute_process(
    COMMAND ${MRP_PYTHON} -c
            "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE torch_dir OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "No LibTorch: ${MRP_PYTHON} has no torch package. "
                        "Run jobs/setup.sh, or pass -DMRP_TORCH_DIR=<folder with include/ and lib/>.")
  endif()
  set(MRP_TORCH_DIR ${torch_dir} CACHE PATH "" FORCE)
endif()
message(STATUS "LibTorch: ${MRP_TORCH_DIR}")

add_library(mrp_torch INTERFACE)
target_include_directories(mrp_torch SYSTEM INTERFACE
  ${MRP_TORCH_DIR}/include ${MRP_TORCH_DIR}/include/torch/csrc/api/include)
# The wheel's libraries export a std::filesystem of their own, which crashes in other programs; the
# C++ library must come before them in the search order. One item, so that CMake keeps it together.
target_link_libraries(mrp_torch INTERFACE
  -Wl,--push-state,--no-as-needed,-lstdc++,--pop-state
  ${MRP_TORCH_DIR}/lib/libtorch.so ${MRP_TORCH_DIR}/lib/libtorch_cpu.so
  ${MRP_TORCH_DIR}/lib/libc10.so)
target_link_options(mrp_torch INTERFACE -Wl,-rpath,${MRP_TORCH_DIR}/lib)

# The wheels of NVIDIA's libraries stand beside the torch package.
get_filename_component(site_packages ${MRP_TORCH_DIR} DIRECTORY)
find_path(MRP_NCCL_INCLUDE_DIR nccl.h HINTS ${site_packages}/nvidia/nccl/include)
find_file(MRP_NCCL_LIBRARY NAMES libnccl.so.2 libnccl.so
          HINTS ${site_packages}/nvidia/nccl/lib PATH_SUFFIXES lib lib/x86_64-linux-gnu)
find_path(MRP_CUDA_INCLUDE_DIR cuda_runtime_api.h
          HINTS ${site_packages}/nvidia/cu13/include PATHS /usr/local/cuda/include)
find_file(MRP_CUDART_LIBRARY NAMES libcudart.so.13 libcudart.so
          HINTS ${site_packages}/nvidia/cu13/lib PATHS /usr/local/cuda/lib64)
if(MRP_NCCL_INCLUDE_DIR AND MRP_NCCL_LIBRARY AND MRP_CUDA_INCLUDE_DIR AND MRP_CUDART_LIBRARY
   AND EXISTS ${MRP_TORCH_DIR}/lib/libtorch_cuda.so)
  set(MRP_WITH_NCCL ON)
  add_library(mrp_nccl INTERFACE)
  target_include_directories(mrp_nccl SYSTEM INTERFACE ${MRP_NCCL_INCLUDE_DIR}
                                                       ${MRP_CUDA_INCLUDE_DIR})
  target_link_libraries(mrp_nccl INTERFACE ${MRP_NCCL_LIBRARY} ${MRP_CUDART_LIBRARY})
  target_compile_definitions(mrp_nccl INTERFACE MRP_WITH_NCCL)
  # --no-as-needed: nothing refers to libtorch_cuda by symbol, it registers itself when loaded.
  target_link_libraries(mrp_torch INTERFACE
    -Wl,--no-as-needed ${MRP_TORCH_DIR}/lib/libtorch_cuda.so ${MRP_TORCH_DIR}/lib/libc10_cuda.so
    -Wl,--as-needed)
  message(STATUS "NCCL: ${MRP_NCCL_LIBRARY}")
else()
  message(STATUS "NCCL or CUDA headers not found: built without GPU support")
endif()
