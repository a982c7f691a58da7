// Private: the BLACS and ScaLAPACK symbols that the solver uses, and nothing else. Integers are 32
// bits wide; callers narrow with checked_cast. The trailing std::size_t are Fortran's hidden string
// lengths.
#pragma once

#include <mpi.h>

#include <cstddef>

extern "C" {

// BLACS, C interface.
int Csys2blacs_handle(MPI_Comm comm);
void Cfree_blacs_system_handle(int handle);
void Cblacs_gridinit(int* context, const char* order, int rows, int columns);
void Cblacs_gridinfo(int context, int* rows, int* columns, int* row, int* column);
void Cblacs_gridexit(int context);

// PBLAS.
void pdgemm_(const char* transa, const char* transb, const int* m, const int* n, const int* k,
             const double* alpha, const double* a, const int* ia, const int* ja, const int* desca,
             const double* b, const int* ib, const int* jb, const int* descb, const double* beta,
             double* c, const int* ic, const int* jc, const int* descc, std::size_t, std::size_t);
void pdtran_(const int* m, const int* n, const double* alpha, const double* a, const int* ia,
             const int* ja, const int* desca, const double* beta, double* c, const int* ic,
             const int* jc, const int* descc);
void pdtrsm_(const char* side, const char* uplo, const char* transa, const char* diag, const int* m,
             const int* n, const double* alpha, const double* a, const int* ia, const int* ja,
             const int* desca, double* b, const int* ib, const int* jb, const int* descb,
             std::size_t, std::size_t, std::size_t, std::size_t);

// ScaLAPACK.
void pdpotrf_(const char* uplo, const int* n, double* a, const int* ia, const int* ja,
              const int* desca, int* info, std::size_t);
void pdsygst_(const int* ibtype, const char* uplo, const int* n, double* a, const int* ia,
              const int* ja, const int* desca, const double* b, const int* ib, const int* jb,
              const int* descb, double* scale, int* info, std::size_t);
void pdsyevr_(const char* jobz, const char* range, const char* uplo, const int* n, double* a,
              const int* ia, const int* ja, const int* desca, const double* vl, const double* vu,
              const int* il, const int* iu, int* m, int* nz, double* w, double* z, const int* iz,
              const int* jz, const int* descz, double* work, const int* lwork, int* iwork,
              const int* liwork, int* info, std::size_t, std::size_t, std::size_t);
void pdsyevd_(const char* jobz, const char* uplo, const int* n, double* a, const int* ia,
              const int* ja, const int* desca, double* w, double* z, const int* iz, const int* jz,
              const int* descz, double* work, const int* lwork, int* iwork, const int* liwork,
              int* info, std::size_t, std::size_t);
}
