/**
 * Names of CPUID's feature bits, for messages. Sources: Intel SDM volume 2A (CPUID), AMD APM volume 3 appendix E,
 * Documentation/virt/kvm/x86/cpuid.rst. Names as the manuals have them; a bit without one is told by its place.
 */
import { KvmFeature, Leaf } from './cpuid.js';

export type CpuidRegister = 'eax' | 'ebx' | 'ecx' | 'edx';

export interface FeatureRegister {
  readonly leaf: number;
  readonly index: number;
  readonly register: CpuidRegister;
  /** By bit, from 0; '' for one without a name. */
  readonly names: readonly string[];
}

const words = (text: string): string[] => text.split(' ').map((word) => (word === '-' ? '' : word));

const kvmNames: string[] = [];
for (const [name, bit] of Object.entries(KvmFeature)) kvmNames[bit] = `KVM_${name}`;

/** Every register that is a set of features: a guest that was told of a bit may use it at any time. */
export const featureRegisters: readonly FeatureRegister[] = [
  {
    leaf: Leaf.FEATURES,
    index: 0,
    register: 'ecx',
    names: words(
      'SSE3 PCLMULQDQ DTES64 MONITOR DS_CPL VMX SMX EIST TM2 SSSE3 CNXT_ID SDBG FMA CMPXCHG16B XTPR PDCM ' +
        '- PCID DCA SSE4_1 SSE4_2 X2APIC MOVBE POPCNT TSC_DEADLINE AES XSAVE OSXSAVE AVX F16C RDRAND HYPERVISOR',
    ),
  },
  {
    leaf: Leaf.FEATURES,
    index: 0,
    register: 'edx',
    names: words(
      'FPU VME DE PSE TSC MSR PAE MCE CX8 APIC - SEP MTRR PGE MCA CMOV ' +
        'PAT PSE36 PSN CLFSH - DS ACPI MMX FXSR SSE SSE2 SS HTT TM - PBE',
    ),
  },
  { leaf: Leaf.POWER, index: 0, register: 'eax', names: words('DTHERM TURBO ARAT') },
  {
    leaf: Leaf.EXTENDED_FEATURES,
    index: 0,
    register: 'ebx',
    names: words(
      'FSGSBASE TSC_ADJUST SGX BMI1 HLE AVX2 FDP_EXCPTN SMEP BMI2 ERMS INVPCID RTM RDT_M ZERO_FCS MPX RDT_A ' +
        'AVX512F AVX512DQ RDSEED ADX SMAP AVX512_IFMA - CLFLUSHOPT CLWB PT AVX512PF AVX512ER AVX512CD SHA AVX512BW AVX512VL',
    ),
  },
  {
    leaf: Leaf.EXTENDED_FEATURES,
    index: 0,
    register: 'ecx',
    names: words(
      'PREFETCHWT1 AVX512_VBMI UMIP PKU OSPKE WAITPKG AVX512_VBMI2 CET_SS GFNI VAES VPCLMULQDQ AVX512_VNNI ' +
        'AVX512_BITALG TME AVX512_VPOPCNTDQ - LA57 - - - - - RDPID KL BUS_LOCK_DETECT CLDEMOTE - MOVDIRI MOVDIR64B ENQCMD SGX_LC PKS',
    ),
  },
  {
    leaf: Leaf.EXTENDED_FEATURES,
    index: 0,
    register: 'edx',
    names: words(
      '- SGX_KEYS AVX512_4VNNIW AVX512_4FMAPS FSRM UINTR - - AVX512_VP2INTERSECT SRBDS_CTRL MD_CLEAR RTM_ALWAYS_ABORT - ' +
        'RTM_FORCE_ABORT SERIALIZE HYBRID TSXLDTRK - PCONFIG ARCH_LBR CET_IBT - AMX_BF16 AVX512_FP16 AMX_TILE AMX_INT8 ' +
        'IBRS_IBPB STIBP L1D_FLUSH ARCH_CAPABILITIES CORE_CAPABILITIES SSBD',
    ),
  },
  {
    leaf: Leaf.EXTENDED_FEATURES,
    index: 1,
    register: 'eax',
    names: words(
      'SHA512 SM3 SM4 RAO_INT AVX_VNNI AVX512_BF16 LASS CMPCCXADD - - FZRM FSRS FSRC - - - - FRED LKGS WRMSRNS - ' +
        'AMX_FP16 HRESET AVX_IFMA - - LAM MSRLIST',
    ),
  },
  { leaf: Leaf.EXTENDED_FEATURES, index: 1, register: 'edx', names: words('- - - - AVX_VNNI_INT8 AVX_NE_CONVERT') },
  {
    leaf: Leaf.EXTENDED_FEATURES,
    index: 2,
    register: 'edx',
    names: words('PSFD IPRED_CTRL RRSBA_CTRL DDPD_U BHI_CTRL MCDT_NO'),
  },
  {
    leaf: Leaf.XSAVE,
    index: 0,
    register: 'eax',
    names: words('x87 SSE AVX BNDREGS BNDCSR opmask ZMM_Hi256 Hi16_ZMM - PKRU - - - - - - - TILECFG TILEDATA').map(
      (name) => name && `XCR0.${name}`,
    ),
  },
  { leaf: Leaf.XSAVE, index: 0, register: 'edx', names: [] },
  { leaf: Leaf.XSAVE, index: 1, register: 'eax', names: words('XSAVEOPT XSAVEC XGETBV_ECX1 XSAVES XFD') },
  { leaf: Leaf.XSAVE, index: 1, register: 'ecx', names: [] },
  { leaf: Leaf.XSAVE, index: 1, register: 'edx', names: [] },
  {
    leaf: Leaf.AMD_FEATURES,
    index: 0,
    register: 'ecx',
    names: words(
      'LAHF_SAHF CMP_LEGACY SVM EXTAPIC ALTMOVCR8 LZCNT SSE4A MISALIGNSSE 3DNOWPREFETCH OSVW IBS XOP SKINIT WDT - LWP ' +
        'FMA4 TCE - NODEID_MSR - TBM TOPOEXT PERFCTR_CORE PERFCTR_NB - DBX PERFTSC PERFCTR_LLC MWAITX',
    ),
  },
  {
    leaf: Leaf.AMD_FEATURES,
    index: 0,
    register: 'edx',
    names: words(
      'FPU VME DE PSE TSC MSR PAE MCE CX8 APIC - SYSCALL MTRR PGE MCA CMOV ' +
        'PAT PSE36 - MP NX - MMXEXT MMX FXSR FXSR_OPT PAGE1GB RDTSCP - LM 3DNOWEXT 3DNOW',
    ),
  },
  { leaf: Leaf.AMD_POWER, index: 0, register: 'edx', names: words('- - - - - - - - INVARIANT_TSC') },
  {
    leaf: Leaf.AMD_SIZES,
    index: 0,
    register: 'ebx',
    names: words(
      'CLZERO IRPERF XSAVEERPTR - RDPRU - - - - WBNOINVD - - IBPB - IBRS STIBP IBRS_ALWAYS STIBP_ALWAYS - ' +
        'IBRS_SAME_MODE - - - PPIN SSBD VIRT_SSBD SSB_NO CPPC PSFD BTC_NO IBPB_RET',
    ),
  },
  {
    leaf: Leaf.AMD_SVM,
    index: 0,
    register: 'edx',
    names: words('NPT LBRV SVML NRIPS TSCRATEMSR VMCBCLEAN FLUSHBYASID'),
  },
  {
    leaf: Leaf.AMD_FEATURES_2,
    index: 0,
    register: 'eax',
    names: words('NO_NESTED_DATA_BP - LFENCE_SERIALIZING - - - NULL_SEL_CLR_BASE - AUTOIBRS'),
  },
  { leaf: Leaf.KVM_FEATURES, index: 0, register: 'eax', names: Array.from(kvmNames, (name) => name ?? '') },
];
