/* Benchmark: f64 matrices, with SIMD where it helps: blocked product (v128), LU solve and a residual.
 *
 * Scale: products of 256 x 256 matrices (default 200), one LU solve for every four of them.
 */
#include <math.h>
#include <wasm_simd128.h>

#include "common.h"

enum { N = 256, BLOCK = 32 };

typedef double Matrix[N][N];

static void multiply(Matrix a, Matrix b, Matrix out) {
    memset(out, 0, sizeof(Matrix));
    for (int kk = 0; kk < N; kk += BLOCK) {
        for (int i = 0; i < N; i++) {
            for (int k = kk; k < kk + BLOCK; k++) {
                v128_t factor = wasm_f64x2_splat(a[i][k]);
                for (int j = 0; j < N; j += 4) {
                    v128_t low = wasm_f64x2_mul(factor, wasm_v128_load(&b[k][j]));
                    v128_t high = wasm_f64x2_mul(factor, wasm_v128_load(&b[k][j + 2]));
                    wasm_v128_store(&out[i][j], wasm_f64x2_add(wasm_v128_load(&out[i][j]), low));
                    wasm_v128_store(&out[i][j + 2], wasm_f64x2_add(wasm_v128_load(&out[i][j + 2]), high));
                }
            }
        }
    }
}

/* Solves a x = b by LU with partial pivoting; destroys a, leaves x in b. */
static void solve(Matrix a, double *b) {
    for (int column = 0; column < N; column++) {
        int pivot = column;
        for (int row = column + 1; row < N; row++)
            if (fabs(a[row][column]) > fabs(a[pivot][column])) pivot = row;
        for (int j = 0; pivot != column && j < N; j++) {
            double held = a[column][j];
            a[column][j] = a[pivot][j];
            a[pivot][j] = held;
        }
        double held = b[column];
        b[column] = b[pivot];
        b[pivot] = held;
        for (int row = column + 1; row < N; row++) {
            double factor = a[row][column] / a[column][column];
            for (int j = column; j < N; j++) a[row][j] -= factor * a[column][j];
            b[row] -= factor * b[column];
        }
    }
    for (int row = N; row--;) {
        for (int j = row + 1; j < N; j++) b[row] -= a[row][j] * b[j];
        b[row] /= a[row][row];
    }
}

int main(int argc, char **argv) {
    long products = scale_argument(argc, argv, 200);
    uint64_t started = clock_ns(), checksum = 0;
    static Matrix a, b, c, lu;
    static double x[N], right[N];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            a[i][j] = (double)random_below(2000) / 1000 - 1 + (i == j ? 8 : 0);
            b[i][j] = (double)random_below(2000) / 1000 - 1;
        }
    for (long n = 0; n < products; n++) {
        multiply(a, b, c);
        double norm = 0;
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) norm += c[i][j] * c[i][j];
        norm = sqrt(norm);
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) b[i][j] = c[i][j] * (N / norm);
        if (n % 4 == 0) {
            double residual = 0;
            for (int i = 0; i < N; i++) x[i] = right[i] = b[i][n % N];
            memcpy(lu, a, sizeof lu);
            solve(lu, x);
            for (int i = 0; i < N; i++) {
                double sum = -right[i];
                for (int j = 0; j < N; j++) sum += a[i][j] * x[j];
                residual += fabs(sum);
            }
            require(residual < 1e-8, "the solution solves");
            checksum = fnv1a(checksum, x, sizeof x);
        }
        checksum = fnv1a(checksum, &norm, sizeof norm);
    }
    return report("matrix", products, fnv1a(checksum, b, sizeof b), started);
}
