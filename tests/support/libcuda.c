/* CUDA's driver API with the same cards. */
#include <stdlib.h>
#include <string.h>
static int number(const char *name) { char *set = getenv(name); return set ? atoi(set) : 0; }
int cuDriverGetVersion(int *v) { *v = 13000; return 0; }
int cuInit(unsigned f) { return number("TEST_CUINIT"); }
int cuDeviceGetCount(int *n) {
    char *order = getenv("TEST_CUDA");
    *n = order ? (strlen(order) + 1) / 2 : number("TEST_CARDS"); return 0;
}
int cuGetErrorName(int e, const char **s) { *s = "CUDA_ERROR_NO_DEVICE"; return 0; }
int cuDeviceGet(int *d, int n) {
    char *order = getenv("TEST_CUDA");
    *d = order ? order[2 * n] - '0' : n;
    return 0;
}
int cuDeviceGetUuid_v2(unsigned char *out, int d) {
    memset(out, 0, 16);
    if (number("TEST_SLICES") && d == 0) { out[14] = 1; return 0; }
    out[15] = d; return 0;
}
