/* What this CPU can run of the kernels. */

/* Return bits: 1 the kernels in fp32, 2 those in bf16, 4 those in int8. */
int rankmill_supported(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")))
        return 0;
    return 1 | (__builtin_cpu_supports("avx512bf16") ? 2 : 0) |
           (__builtin_cpu_supports("avx512vnni") ? 4 : 0);
#else
    return 0;
#endif
}
