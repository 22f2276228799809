/* Every rank says where it is, and all add up their numbers.
 *
 * Compile it here; job.json ships the program with this folder:
 *
 *     mpicc -o hello_mpi hello_mpi.c
 *     ccctl submit job.json --follow
 *
 * There is no mpirun in job.json: the launcher brings it, and needs no ssh between the nodes. All
 * output comes through mpirun, so it stands in the log of rank 0.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    int rank, size, sum;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);

    const char *node = getenv("CC_NODE_NAME");        /* told by the node's agent */
    const char *local_rank = getenv("CC_LOCAL_RANK"); /* which of the node's devices is ours */
    printf("rank %d of %d on %s: local rank %s\n", rank, size, node ? node : "this host",
           local_rank ? local_rank : "0");
    fflush(stdout);

    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    if (rank == 0)
        printf("sum of all ranks: %d\n", sum);

    MPI_Finalize();
    return 0;
}
