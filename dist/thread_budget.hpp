// How many threads a rank may use. Private to dist.
#pragma once

namespace mrp::dist::detail {

/// Threads of a rank that may run on `own_cores` of the `node_cores` that the node's `node_ranks`
/// ranks may use together: an even share, never more than its own cores, at least 1.
int thread_budget(int own_cores, int node_cores, int node_ranks);

/// The value of MRP_THREADS, or 0 for a null pointer. @throws UsageError unless it is a positive
/// integer.
int requested_threads(const char* text);

/// Undoes the binding that Open MPI's mpirun applies to small jobs when nobody asked for one: a
/// rank bound to one core would keep all its threads there. An explicit binding (mpirun --bind-to
/// or
/// --map-by, srun, MCA variables) stays. Call before the first thread is started.
void release_default_binding();

/// Collective over MPI_COMM_WORLD. This rank's thread budget, from affinity masks and MRP_THREADS.
int thread_budget_of_rank();

}  // namespace mrp::dist::detail
