/* Gradient descent of many small siamese networks, run by run: the loop that `siamese_routes.py` compiles and times.
 *
 *     R = B A X - C Y,   A -= h (B^T R + l A),   B -= h (R A^T + l B),   C <- alpha C + (1 - alpha) A   (without c: C = A)
 *
 * Compiled for one size and one number type: -DN=2 -DM=1 -DREAL=double. W runs stand side by side, the innermost loops, which
 * the compiler vectorises: W = 1 is the plain loop. Arrays are (runs, rows, columns) in C order.
 */
#include <stddef.h>
#include <string.h>

#define EACH(i, n) for (int i = 0; i < (n); i++)

static void load(REAL *own, const REAL *from, size_t first, size_t runs, int size) {
    EACH(w, W) {
        size_t run = first + w < runs ? first + w : runs - 1;
        EACH(e, size) own[e * W + w] = from[run * size + e];
    }
}

static void store(const REAL *own, REAL *to, size_t first, size_t runs, int size) {
    EACH(w, W) if (first + w < runs) EACH(e, size) to[(first + w) * size + e] = own[e * W + w];
}

void train(REAL *a, REAL *b, REAL *c, const REAL *xx, const REAL *yx, const REAL *decay, double rate, double momentum,
           size_t runs, int steps, int threads) {
    const REAL h = rate, alpha = momentum, rest = 1 - alpha;
    const long blocks = (runs + W - 1) / W;
#pragma omp parallel for num_threads(threads)
    for (long block = 0; block < blocks; block++) {
        const size_t first = (size_t)block * W;
        REAL A[N][M][W], B[N][N][W], C[N][M][W], X[M][M][W], Y[M][M][W], l[W];
        load(&A[0][0][0], a, first, runs, N * M);
        load(&B[0][0][0], b, first, runs, N * N);
        load(&C[0][0][0], c ? c : a, first, runs, N * M);
        load(&X[0][0][0], xx, first, runs, M * M);
        load(&Y[0][0][0], yx, first, runs, M * M);
        load(l, decay, first, runs, 1);
        EACH(step, steps) {
            REAL P[N][M][W], R[N][M][W], dA[N][M][W], dB[N][N][W];
            memset(P, 0, sizeof P);
            memset(R, 0, sizeof R);
            EACH(i, N) EACH(k, N) EACH(j, M) EACH(w, W) P[i][j][w] += B[i][k][w] * A[k][j][w];
            EACH(i, N) EACH(k, M) EACH(j, M) EACH(w, W)
                R[i][j][w] += P[i][k][w] * X[k][j][w] - C[i][k][w] * Y[k][j][w];
            EACH(i, N) EACH(j, M) EACH(w, W) dA[i][j][w] = l[w] * A[i][j][w];
            EACH(k, N) EACH(i, N) EACH(j, M) EACH(w, W) dA[i][j][w] += B[k][i][w] * R[k][j][w];
            EACH(i, N) EACH(j, N) EACH(w, W) dB[i][j][w] = l[w] * B[i][j][w];
            EACH(i, N) EACH(j, N) EACH(k, M) EACH(w, W) dB[i][j][w] += R[i][k][w] * A[j][k][w];
            EACH(i, N) EACH(j, M) EACH(w, W) A[i][j][w] -= h * dA[i][j][w];
            EACH(i, N) EACH(j, N) EACH(w, W) B[i][j][w] -= h * dB[i][j][w];
            if (c) EACH(i, N) EACH(j, M) EACH(w, W) C[i][j][w] = alpha * C[i][j][w] + rest * A[i][j][w];
            else memcpy(C, A, sizeof C);
        }
        store(&A[0][0][0], a, first, runs, N * M);
        store(&B[0][0][0], b, first, runs, N * N);
        if (c) store(&C[0][0][0], c, first, runs, N * M);
    }
}
