#include "io/hdf5.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "hdf5_support.hpp"
#include "io/dtype.hpp"
#include "io/hdf5_array.hpp"

namespace mrp {
namespace {

using dist::InputError;
using io::read_vector;
using test::input_error;

class Hdf5Test : public test::LocalFolder {
 protected:
  std::filesystem::path path() const { return folder() / "file.h5"; }

  /// A file with an i64 dataset /group/numbers = 0 … 9 and an attribute of each kind.
  void create() const {
    auto file = io::create_hdf5(path());
    io::write_format(file.get(), "test.format", 3, "");
    io::write_attribute(file.get(), "real", 0.1);
    io::write_attribute(file.get(), "text", std::string("größer ≥ 0"));
    const auto group = io::create_group(file.get(), "group");
    const std::vector<std::int64_t> numbers = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    io::write_array<std::int64_t>(group.get(), "numbers", std::array<std::int64_t, 1>{10}, numbers);
    file.close();
  }

  std::vector<std::int64_t> read() const {
    const auto file = io::open_hdf5(path());
    return io::as_input(path(), [&] {
      return read_vector<std::int64_t>(io::open_group(file.get(), "group").get(), "numbers");
    });
  }

  /// Replaces /group/numbers by what `make` creates under that name.
  void replace(const std::function<void(hid_t)>& make) const {
    create();
    test::edit_hdf5(path(), [&](hid_t file) {
      const auto group = MRP_HDF5_HANDLE(H5Gopen2(file, "group", H5P_DEFAULT), H5Gclose);
      MRP_HDF5(H5Ldelete(group.get(), "numbers", H5P_DEFAULT));
      make(group.get());
    });
  }

  /// The same with a dataset of ten values with the given creation properties.
  void replace_dataset(hid_t type, hsize_t length,
                       const std::function<void(hid_t)>& configure) const {
    replace([&](hid_t group) {
      const auto properties = MRP_HDF5_HANDLE(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
      configure(properties.get());
      const auto space = MRP_HDF5_HANDLE(H5Screate_simple(1, &length, nullptr), H5Sclose);
      const auto dataset = MRP_HDF5_HANDLE(H5Dcreate2(group, "numbers", type, space.get(),
                                                      H5P_DEFAULT, properties.get(), H5P_DEFAULT),
                                           H5Dclose);
      if (length > 10) return;
      const std::vector<std::int64_t> numbers = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
      MRP_HDF5(
          H5Dwrite(dataset.get(), H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers.data()));
    });
  }
};

TEST_F(Hdf5Test, attributes_and_arrays_return) {
  create();
  const auto file = io::open_hdf5(path());
  io::check_format(file.get(), "test.format", 3);
  EXPECT_EQ(io::read_text_attribute(file.get(), "fingerprint"), "");
  EXPECT_EQ(io::read_text_attribute(file.get(), "text"), "größer ≥ 0");
  EXPECT_EQ(io::read_real_attribute(file.get(), "real"), 0.1);
  EXPECT_EQ(io::children(file.get()), std::vector<std::string>{"group"});
  EXPECT_EQ(read().back(), 9);
}

TEST_F(Hdf5Test, attributes_of_another_kind_are_named) {
  create();
  const auto file = io::open_hdf5(path());
  EXPECT_EQ(input_error([&] { io::check_format(file.get(), "other", 3); }),
            path().string() + ": format is \"test.format\", not \"other\"; give the right file");
  EXPECT_THROW(io::check_format(file.get(), "test.format", 4), InputError);
  EXPECT_THROW(io::read_text_attribute(file.get(), "version"), InputError);
  EXPECT_THROW(io::read_int_attribute(file.get(), "text"), InputError);
  EXPECT_THROW(io::read_real_attribute(file.get(), "version"), InputError);
  EXPECT_NE(
      input_error([&] { io::read_text_attribute(file.get(), "none"); }).find("\"none\" is missing"),
      std::string::npos);
}

TEST_F(Hdf5Test, a_failing_call_is_one_line_with_the_innermost_reason) {
  create();
  const auto file = io::open_hdf5(path());
  const auto message = test::message_of<io::Hdf5Error>(
      [&] { MRP_HDF5_HANDLE(H5Dopen2(file.get(), "absent", H5P_DEFAULT), H5Dclose); });
  EXPECT_NE(message.find("H5Dopen2("), std::string::npos) << message;
  EXPECT_NE(message.find("object 'absent' doesn't exist"), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos);
  const auto wrapped =
      test::message_of<dist::ResourceError>([&] { io::create_hdf5(folder() / "no" / "file.h5"); });
  EXPECT_NE(wrapped.find("/no/file.h5"), std::string::npos) << wrapped;
  EXPECT_NE(wrapped.find("No such file or directory"), std::string::npos) << wrapped;
}

TEST_F(Hdf5Test, equal_content_means_equal_bytes) {
  create();
  const auto first = get(path());
  // Object times, if they were stored, count seconds.
  const auto start = std::time(nullptr);
  while (std::time(nullptr) == start) ::usleep(50000);
  create();
  EXPECT_TRUE(first == get(path()));
}

TEST_F(Hdf5Test, files_that_are_not_ours_are_refused) {
  EXPECT_THROW(io::open_hdf5(folder() / "absent.h5"), InputError);
  EXPECT_THROW(io::open_hdf5(folder()), InputError);
  put("file.h5", "");
  EXPECT_THROW(io::open_hdf5(path()), InputError);
  put("file.h5", std::string(3000, 'x'));
  EXPECT_NE(input_error([&] { io::open_hdf5(path()); }).find("not an HDF5 file"),
            std::string::npos);
  create();
  // HDF5 itself looks for its signature further on.
  put("file.h5", std::string(512, '\0') + get(path()));
  EXPECT_NE(input_error([&] { io::open_hdf5(path()); }).find("not an HDF5 file"),
            std::string::npos);
  MRP_HDF5_HANDLE(H5Fcreate(path().c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
  EXPECT_NE(input_error([&] { io::open_hdf5(path()); }).find("libver"), std::string::npos);
}

TEST_F(Hdf5Test, a_new_file_does_not_follow_a_link) {
  put("precious", "kept");
  std::filesystem::create_symlink(folder() / "precious", path());
  create();
  EXPECT_EQ(get(folder() / "precious"), "kept");
  EXPECT_EQ(read().size(), 10U);
}

TEST_F(Hdf5Test, links_are_not_followed) {
  replace([](hid_t group) {
    MRP_HDF5(H5Lcreate_soft("/group/real", group, "numbers", H5P_DEFAULT, H5P_DEFAULT));
  });
  EXPECT_NE(input_error([&] { read(); }).find("soft or external link"), std::string::npos);
  create();
  std::filesystem::rename(path(), folder() / "other.h5");
  replace([](hid_t group) {
    MRP_HDF5(H5Lcreate_external("other.h5", "/group/numbers", group, "numbers", H5P_DEFAULT,
                                H5P_DEFAULT));
  });
  EXPECT_NE(input_error([&] { read(); }).find("soft or external link"), std::string::npos);
}

TEST_F(Hdf5Test, data_outside_the_file_are_refused) {
  put("data.bin", std::string(80, '\0'));
  replace_dataset(H5T_STD_I64LE, 10, [&](hid_t properties) {
    MRP_HDF5(H5Pset_external(properties, (folder() / "data.bin").c_str(), 0, 80));
  });
  EXPECT_NE(input_error([&] { read(); }).find("another file"), std::string::npos);
  replace_dataset(H5T_STD_I64LE, 11, [&](hid_t properties) {
    const hsize_t length = 11;
    const auto space = MRP_HDF5_HANDLE(H5Screate_simple(1, &length, nullptr), H5Sclose);
    MRP_HDF5(H5Pset_virtual(properties, space.get(), "other.h5", "/group/numbers", space.get()));
  });
  EXPECT_NE(input_error([&] { read(); }).find("another file"), std::string::npos);
}

TEST_F(Hdf5Test, types_ranks_and_lengths_are_checked) {
  const auto plain = [](hid_t) {};
  replace_dataset(H5T_STD_I64LE, 10, plain);
  EXPECT_EQ(read().size(), 10U);
  for (const hid_t type : {H5T_STD_I32LE, H5T_STD_U64LE, H5T_STD_I64BE, H5T_IEEE_F64LE}) {
    replace_dataset(type, 10, plain);
    EXPECT_THROW(read(), InputError);
  }
  replace([](hid_t group) { io::create_group(group, "numbers"); });
  EXPECT_NE(input_error([&] { read(); }).find("not a dataset"), std::string::npos);
  create();
  const auto file = io::open_hdf5(path());
  const auto group = io::open_group(file.get(), "group");
  EXPECT_THROW(io::read_array<std::int64_t>(group.get(), "numbers", 2), InputError);
  EXPECT_THROW(read_vector<std::int64_t>(group.get(), "numbers", 9), InputError);
  EXPECT_THROW(read_vector<std::int64_t>(group.get(), "none"), InputError);
  EXPECT_THROW(io::open_group(file.get(), "none"), InputError);
  EXPECT_THROW(io::open_group(group.get(), "numbers"), InputError);
}

TEST_F(Hdf5Test, deflate_is_read_and_other_filters_are_refused) {
  const hsize_t chunk = 5;
  replace_dataset(H5T_STD_I64LE, 10, [&](hid_t properties) {
    MRP_HDF5(H5Pset_chunk(properties, 1, &chunk));
    MRP_HDF5(H5Pset_shuffle(properties));
    MRP_HDF5(H5Pset_deflate(properties, 9));
  });
  EXPECT_EQ(read().back(), 9);
  replace_dataset(H5T_STD_I64LE, 10, [&](hid_t properties) {
    MRP_HDF5(H5Pset_chunk(properties, 1, &chunk));
    MRP_HDF5(H5Pset_scaleoffset(properties, H5Z_SO_INT, 0));
  });
  EXPECT_NE(input_error([&] { read(); }).find("deflate"), std::string::npos);
}

TEST_F(Hdf5Test, sizes_that_the_file_cannot_hold_are_refused_before_memory_is_asked_for) {
  const hsize_t chunk = 1024;
  // Chunks that were never written take no space, so a small file can claim anything.
  for (const hsize_t length : {hsize_t{1} << 40, hsize_t{1} << 50}) {
    replace_dataset(H5T_STD_I64LE, length,
                    [&](hid_t properties) { MRP_HDF5(H5Pset_chunk(properties, 1, &chunk)); });
    EXPECT_NE(input_error([&] { read(); }).find("claims"), std::string::npos) << length;
  }
}

TEST_F(Hdf5Test, texts_must_be_fixed_and_utf8) {
  const auto put_texts = [&](std::size_t size, const std::string& bytes) {
    replace([&](hid_t group) {
      const auto type = MRP_HDF5_HANDLE(H5Tcopy(H5T_C_S1), H5Tclose);
      MRP_HDF5(H5Tset_size(type.get(), size));
      MRP_HDF5(H5Tset_strpad(type.get(), H5T_STR_NULLPAD));
      const hsize_t length = size == H5T_VARIABLE ? 1 : bytes.size() / size;
      const auto space = MRP_HDF5_HANDLE(H5Screate_simple(1, &length, nullptr), H5Sclose);
      const auto dataset = MRP_HDF5_HANDLE(H5Dcreate2(group, "numbers", type.get(), space.get(),
                                                      H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                                           H5Dclose);
      const char* pointer = bytes.c_str();
      const void* data = size == H5T_VARIABLE ? static_cast<const void*>(&pointer) : pointer;
      MRP_HDF5(H5Dwrite(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, data));
    });
  };
  const auto texts = [&] {
    const auto file = io::open_hdf5(path());
    return io::read_texts(io::open_group(file.get(), "group").get(), "numbers");
  };
  put_texts(4, std::string("ab\0\0\xf0\x9f\x98\x80\0\0\0\0", 12));
  EXPECT_EQ(texts(), (std::vector<std::string>{"ab", "\xf0\x9f\x98\x80", ""}));
  put_texts(H5T_VARIABLE, "variable");
  EXPECT_NE(input_error([&] { texts(); }).find("fixed length"), std::string::npos);
  for (const char* bad : {"\x80xxx", "\xc3xxx", "\xc0\x80xx", "\xe0\x80\x80x", "\xed\xa0\x80x",
                          "\xf4\x90\x80\x80", "\xf8xxx", "xxx\xc3"}) {
    put_texts(4, bad);
    EXPECT_NE(input_error([&] { texts(); }).find("UTF-8"), std::string::npos);
  }
}

TEST_F(Hdf5Test, bf16_type_holds_the_values_of_bf16) {
  // Conversion by HDF5, an implementation that is not ours, in both directions.
  std::vector<std::uint16_t> bits;
  for (std::uint32_t i = 0; i < 0x10000; ++i) bits.push_back(static_cast<std::uint16_t>(i));
  std::vector<float> floats(bits.size());
  std::copy(bits.begin(), bits.end(), reinterpret_cast<std::uint16_t*>(floats.data()));
  MRP_HDF5(H5Tconvert(io::bf16_type(), H5T_NATIVE_FLOAT, bits.size(), floats.data(), nullptr,
                      H5P_DEFAULT));
  for (std::size_t i = 0; i < bits.size(); ++i) {
    const float expected = io::bf16_to_float(bits[i]);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(floats[i])) << i;
    } else {
      EXPECT_EQ(floats[i], expected) << i;
    }
  }
}

TEST_F(Hdf5Test, damaged_files_are_errors) {
  create();
  const test::Damage damage(path());
  damage.truncate([&] { read(); });
  damage.mutate([&] { read(); });
}

}  // namespace
}  // namespace mrp
