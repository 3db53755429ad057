/**
 * The CPUID table of one vCPU, made from what KVM supports: one socket of single-threaded cores whose APIC ids count
 * from 0, no performance counters, KVM's paravirtual leaves chosen by name below, and no Hyper-V leaves.
 * Rows in, rows out; the machine hands the result to KVM_SET_CPUID2.
 */
import {
  AmdFeatureEcx,
  EXTENDED_EBX_SGX,
  FeatureEcx,
  FeatureEdx,
  KVM_SIGNATURE,
  KvmFeature,
  Leaf,
  POWER_EAX_ARAT,
} from '../abi/cpuid.js';
import { checkInteger } from '../base/options.js';
import type { CpuidEntry } from '../kvm/index.js';
import { amdCache, amdTopology, intelCache, log2Ceil, MAX_CPUS, topologyRows } from './cpuid-topology.js';

export interface CpuidOptions {
  /** Which vCPU, from 0. Its APIC id is the same number. */
  readonly id: number;
  /** How many vCPUs the machine has. */
  readonly count: number;
  /** Keep the TSC-deadline timer, where KVM has it (KVM_CAP_TSC_DEADLINE_TIMER). Default false. */
  readonly tscDeadline?: boolean;
  /** Keep VMX or SVM, for guests that are hosts themselves. Default false. */
  readonly nested?: boolean;
  /** For leaf 0x40000010: the guest's TSC. Without it the leaf is not there. */
  readonly tscKhz?: number;
}

/**
 * The paravirtual features that a guest is offered, where KVM has them, each with its reason.
 * Not offered: async page faults (they need an interrupt of their own and gain nothing while guest memory is resident;
 * with lazily restored memory the pager answers instead), poll control (leaves halt polling to the guest, which then
 * burns the host's CPU), extended MSI destinations (KVM's own devices need user space's help for it), page encryption
 * and migration control (no encrypted guests here).
 */
export const offeredKvmFeatures: readonly (keyof typeof KvmFeature)[] = [
  // The clock: guests need no calibration and keep time over a pause.
  'CLOCKSOURCE',
  'CLOCKSOURCE2',
  'CLOCKSOURCE_STABLE',
  // Port 0x80 writes as delays are pointless here, and each would be an exit.
  'NOP_IO_DELAY',
  // The guest's accounting sees what other load took from it.
  'STEAL_TIME',
  // Most EOIs without an exit; interrupts with an acknowledgement notifier (the PIT's resamplefd) keep theirs.
  'PV_EOI',
  // Spinning vCPUs wait halted, flush remote TLBs and send IPIs without one exit a target.
  'PV_UNHALT',
  'PV_TLB_FLUSH',
  'PV_SEND_IPI',
  'PV_SCHED_YIELD',
];

/** KVM's local APIC timer counts nanoseconds: a bus of 1 GHz. */
const APIC_BUS_KHZ = 1_000_000;
const VENDOR_AMD = 0x6874_7541; // EBX of leaf 0: "Auth"
const VENDOR_HYGON = 0x6f67_7948; // "Hygo"

/**
 * The CPUID table of a vCPU.
 *
 * @param supported what KVM_GET_SUPPORTED_CPUID reports.
 * @throws RangeError when id is not below count.
 */
export function cpuidForVcpu(supported: readonly CpuidEntry[], options: CpuidOptions): CpuidEntry[] {
  const { id } = options;
  const count = checkInteger('count', options.count, 1, MAX_CPUS);
  checkInteger('id', id, 0, count - 1);
  const vendor = supported.find((row) => row.function === Leaf.VENDOR)?.ebx;
  const isAmd = vendor === VENDOR_AMD || vendor === VENDOR_HYGON;

  const rows = supported
    .filter((row) => !isHypervisorLeaf(row.function) && !isTopologyLeaf(row.function))
    .map((row) => editRow(row, { ...options, isAmd }));
  // Leaf 0xB exists on every CPU with an x2APIC, which KVM always has. 0x1F only where the CPU's leaves reach that far.
  const highest = rows.find((row) => row.function === Leaf.VENDOR)?.eax ?? 0;
  rows.push(...topologyRows(Leaf.TOPOLOGY, id, count));
  if (highest >= Leaf.TOPOLOGY_V2) rows.push(...topologyRows(Leaf.TOPOLOGY_V2, id, count));
  rows.push(...paravirtualRows(supported, options.tscKhz));
  return rows;
}

const isHypervisorLeaf = (leaf: number): boolean => leaf >= Leaf.HYPERVISOR && leaf <= Leaf.HYPERVISOR_END;
const isTopologyLeaf = (leaf: number): boolean => leaf === Leaf.TOPOLOGY || leaf === Leaf.TOPOLOGY_V2;
const nothing = { eax: 0, ebx: 0, ecx: 0, edx: 0 } as const;

/** Bit arithmetic in JavaScript is signed; the registers are not. */
const u32 = (value: number): number => value >>> 0;
const withBits = (value: number, bits: number, on: boolean): number => u32(on ? value | bits : value & ~bits);

function editRow(row: CpuidEntry, options: CpuidOptions & { isAmd: boolean }): CpuidEntry {
  const { id, count, isAmd } = options;
  const nested = options.nested === true;
  switch (row.function) {
    case Leaf.VENDOR:
      return { ...row, eax: Math.max(row.eax, Leaf.TOPOLOGY) };
    case Leaf.FEATURES: {
      let ecx = withBits(row.ecx, FeatureEcx.HYPERVISOR | FeatureEcx.X2APIC, true);
      // KVM follows CR4 by itself for OSXSAVE; the counters of PDCM are not there.
      ecx = withBits(ecx, FeatureEcx.OSXSAVE | FeatureEcx.PDCM, false);
      if (options.tscDeadline !== true) ecx = withBits(ecx, FeatureEcx.TSC_DEADLINE, false);
      if (!nested) ecx = withBits(ecx, FeatureEcx.VMX, false);
      const edx = withBits(withBits(row.edx, FeatureEdx.APIC, true), FeatureEdx.HTT, count > 1);
      const ebx = u32((row.ebx & 0xffff) | (Math.min(count, 255) << 16) | ((id & 0xff) << 24));
      return { ...row, ebx, ecx, edx };
    }
    case Leaf.CACHE:
      return { ...row, eax: intelCache(row.eax, count) };
    case Leaf.POWER:
      return { ...row, ...nothing, eax: POWER_EAX_ARAT };
    case Leaf.EXTENDED_FEATURES:
      // Enclaves need memory of their own, which a machine does not have.
      return row.index === 0 ? { ...row, ebx: withBits(row.ebx, EXTENDED_EBX_SGX, false) } : row;
    case Leaf.PERFORMANCE:
    case Leaf.SGX:
    case Leaf.AMD_PERFORMANCE:
      return { ...row, ...nothing };
    case Leaf.AMD_FEATURES: {
      let ecx = withBits(row.ecx, AmdFeatureEcx.PERFCTR_CORE, false);
      if (!nested) ecx = withBits(ecx, AmdFeatureEcx.SVM, false);
      if (isAmd) ecx = withBits(ecx, AmdFeatureEcx.CMP_LEGACY, count > 1);
      return { ...row, ecx };
    }
    case Leaf.AMD_SIZES: {
      // Core count less one, and the bits of an APIC id that tell cores apart. Reserved on Intel.
      const sizes = u32((row.ecx & ~0xf0ff) | Math.min(count - 1, 255) | (log2Ceil(count) << 12));
      return isAmd ? { ...row, ecx: sizes } : row;
    }
    case Leaf.AMD_SVM:
      return nested ? row : { ...row, ...nothing };
    case Leaf.AMD_CACHE:
      return { ...row, eax: amdCache(row.eax, count) };
    case Leaf.AMD_TOPOLOGY:
      return isAmd ? { ...row, ...amdTopology(id) } : row;
    default:
      return row;
  }
}

/** Leaves from 0x40000000: the signature, the features offered, and what is known of the clocks. */
function paravirtualRows(supported: readonly CpuidEntry[], tscKhz: number | undefined): CpuidEntry[] {
  const has = supported.find((row) => row.function === Leaf.KVM_FEATURES)?.eax ?? 0;
  const offered = offeredKvmFeatures.reduce((bits, feature) => bits | (1 << KvmFeature[feature]), 0);
  const row = (leaf: number, registers: Partial<CpuidEntry>): CpuidEntry => ({
    function: leaf,
    index: 0,
    flags: 0,
    ...nothing,
    ...registers,
  });
  const rows = [
    row(Leaf.HYPERVISOR, { eax: tscKhz === undefined ? Leaf.KVM_FEATURES : Leaf.TIMING, ...KVM_SIGNATURE }),
    row(Leaf.KVM_FEATURES, { eax: u32(has & offered) }),
  ];
  if (tscKhz !== undefined) rows.push(row(Leaf.TIMING, { eax: u32(tscKhz), ebx: APIC_BUS_KHZ }));
  return rows;
}
