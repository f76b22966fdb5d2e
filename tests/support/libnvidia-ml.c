/* NVML with the cards that a test describes; tests/support/nvml.py has the variables. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void *Device;

static int number(const char *name) { char *set = getenv(name); return set ? atoi(set) : 0; }

static int fails(const char *function, long gpu) {
    char *hang = getenv("TEST_HANG"), *fail = getenv("TEST_FAIL"), named[99];
    if (hang && !strcmp(hang, function)) for (;;) sleep(1);
    if (!fail) return 0;
    int length = strcspn(fail, "=");
    snprintf(named, sizeof named, "%s:%ld", function, gpu);
    int hit = (strlen(function) == length && !strncmp(fail, function, length))
           || (strlen(named) == length && !strncmp(fail, named, length));
    return hit ? atoi(fail + length + 1) : 0;
}
#define CHECK(gpu) int code = fails(__func__, gpu); if (code) return code

/* A GPU is its number + 1; a slice of the first is 100 + its number. */
static long gpu_of(Device device) { long d = (long)device; return d >= 100 ? 0 : d - 1; }

int nvmlInitWithFlags(unsigned flags) { CHECK(-1); return 0; }
int nvmlShutdown(void) { CHECK(-1); return 0; }
const char *nvmlErrorString(int code) { return "an error of the test"; }
int nvmlSystemGetDriverVersion(char *out, unsigned n) {
    CHECK(-1);
    snprintf(out, n, "580.95.05");
    return 0;
}
int nvmlSystemGetCudaDriverVersion_v2(int *out) { CHECK(-1); *out = 13000; return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { CHECK(-1); *n = number("TEST_CARDS"); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, Device *out) {
    CHECK(i);
    *out = (Device)(long)(i + 1);
    return 0;
}
int nvmlDeviceGetUUID(Device d, char *out, unsigned n) {
    CHECK(gpu_of(d));
    if ((long)d >= 100) snprintf(out, n, "MIG-00000000-0000-0000-0000-0000000001%02ld", (long)d - 100);
    else snprintf(out, n, "GPU-00000000-0000-0000-0000-0000000000%02ld", gpu_of(d));
    return 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, Device *out) {
    CHECK(-1);
    long last = atol(uuid + strlen(uuid) - 3);
    if (!strncmp(uuid, "GPU-", 4) && last < number("TEST_CARDS")) *out = (Device)(last + 1);
    else if (!strncmp(uuid, "MIG-", 4) && last >= 100 && last - 100 < number("TEST_SLICES")) *out = (Device)last;
    else return 6;
    return 0;
}
int nvmlDeviceGetName(Device d, char *out, unsigned n) {
    CHECK(gpu_of(d));
    snprintf(out, n, (long)d >= 100 ? "NVIDIA H100 MIG 1g.10gb" : "NVIDIA H100 80GB HBM3");
    return 0;
}
int nvmlDeviceGetMemoryInfo(Device d, uint64_t *out) {
    CHECK(gpu_of(d));
    uint64_t gib = 1ull << 30;
    out[0] = ((long)d >= 100 ? 10 : 80) * gib; out[2] = ((long)d >= 100 ? 1 : 20) * gib; out[1] = out[0] - out[2];
    return 0;
}
int nvmlDeviceGetUtilizationRates(Device d, unsigned *out) {
    CHECK(gpu_of(d));
    if ((long)d >= 100) return 3;
    out[0] = 75; out[1] = 30; return 0;
}
int nvmlDeviceGetTemperature(Device d, int sensor, unsigned *out) {
    CHECK(gpu_of(d));
    if ((long)d >= 100) return 2;
    *out = 61; return 0;
}
int nvmlDeviceGetTotalEccErrors(Device d, int type, int counter, unsigned long long *out) {
    CHECK(gpu_of(d));
    *out = type == 1 && counter == 0 ? 2 : 99; return 0;
}
int nvmlDeviceGetMigMode(Device d, unsigned *now, unsigned *next) {
    CHECK(gpu_of(d));
    *now = *next = gpu_of(d) == 0 && number("TEST_SLICES"); return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(Device d, unsigned *n) { CHECK(gpu_of(d)); *n = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(Device d, unsigned i, Device *out) {
    CHECK(gpu_of(d));
    if ((int)i >= number("TEST_SLICES")) return 6;
    *out = (Device)(long)(100 + i); return 0;
}
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device d, Device *out) {
    CHECK(gpu_of(d));
    if ((long)d < 100) return 2;
    *out = (Device)1; return 0;
}
/* nvmlPciInfo_t: busIdLegacy[16], five unsigned, busId[32]. */
int nvmlDeviceGetPciInfo_v3(Device d, char *out) {
    CHECK(gpu_of(d));
    memset(out, 0, 68);
    snprintf(out + 36, 32, "00000000:%02lX:00.0", 0x3A + gpu_of(d)); return 0;
}
