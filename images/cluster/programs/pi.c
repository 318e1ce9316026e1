/* Computes pi on all machines: the area below 4/(1+x^2) from 0 to 1, in narrow strips of
 * which each process adds up every n-th. MPI_Reduce adds the sums. */
#include <mpi.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	const long strips = 20 * 1000 * 1000;
	char host[MPI_MAX_PROCESSOR_NAME];
	int rank, ranks, length;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	MPI_Get_processor_name(host, &length);

	double began = MPI_Wtime(), sum = 0, pi = 0;
	long mine = 0;
	for (long i = rank; i < strips; i += ranks, mine++) {
		double x = (i + 0.5) / strips;
		sum += 4 / (1 + x * x) / strips;
	}
	printf("rank %d of %d on %s: %ld strips in %.1f s\n", rank, ranks, host, mine, MPI_Wtime() - began);
	MPI_Reduce(&sum, &pi, 1, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
	if (rank == 0)
		printf("pi is %.9f\n", pi);
	MPI_Finalize();
	return 0;
}
