// What the compiled file needs, as text: pspnet_repro/ops/extension.py reads it from the file before
// the file is loaded, because code for another processor or another torch can end the program.
#include <torch/version.h>

namespace {

#define PSPNET_WORD(macro) #macro
#define PSPNET_TEXT(macro) PSPNET_WORD(macro)
// "name:1 " where the compiler may use an instruction set, else "name:__MACRO__ ".
#define PSPNET_SET(name, macro) name ":" PSPNET_TEXT(macro) " "

// The sets that a compiler uses by itself, under the names that Linux gives them.
[[gnu::used]] const char kBuildRecord[] =
    "pspnet_repro was compiled for torch " PSPNET_TEXT(TORCH_VERSION_MAJOR) "."
    PSPNET_TEXT(TORCH_VERSION_MINOR) " and a processor with "
    PSPNET_SET("pni", __SSE3__) PSPNET_SET("ssse3", __SSSE3__) PSPNET_SET("sse4_1", __SSE4_1__)
    PSPNET_SET("sse4_2", __SSE4_2__) PSPNET_SET("popcnt", __POPCNT__) PSPNET_SET("avx", __AVX__)
    PSPNET_SET("avx2", __AVX2__) PSPNET_SET("bmi1", __BMI__) PSPNET_SET("bmi2", __BMI2__)
    PSPNET_SET("f16c", __F16C__) PSPNET_SET("fma", __FMA__) PSPNET_SET("abm", __LZCNT__)
    PSPNET_SET("movbe", __MOVBE__) PSPNET_SET("fma4", __FMA4__) PSPNET_SET("xop", __XOP__)
    PSPNET_SET("tbm", __TBM__) PSPNET_SET("gfni", __GFNI__) PSPNET_SET("avx512f", __AVX512F__)
    PSPNET_SET("avx512cd", __AVX512CD__) PSPNET_SET("avx512bw", __AVX512BW__)
    PSPNET_SET("avx512dq", __AVX512DQ__) PSPNET_SET("avx512vl", __AVX512VL__)
    PSPNET_SET("avx512ifma", __AVX512IFMA__) PSPNET_SET("avx512vbmi", __AVX512VBMI__)
    PSPNET_SET("avx512_vbmi2", __AVX512VBMI2__) PSPNET_SET("avx512_vnni", __AVX512VNNI__)
    PSPNET_SET("avx512_bitalg", __AVX512BITALG__)
    PSPNET_SET("avx512_vpopcntdq", __AVX512VPOPCNTDQ__)
    PSPNET_SET("atomics", __ARM_FEATURE_ATOMICS) PSPNET_SET("asimddp", __ARM_FEATURE_DOTPROD)
    PSPNET_SET("asimdhp", __ARM_FEATURE_FP16_VECTOR_ARITHMETIC)
    PSPNET_SET("sve", __ARM_FEATURE_SVE) PSPNET_SET("sve2", __ARM_FEATURE_SVE2);

}  // namespace
