/** The typed view of KVM: what the rooms after this one import. */
export { Kvm, kvmPath } from './system.js';
export type { CpuidEntry } from './cpuid-rows.js';
export { Vm, type GsiRoute, type IoeventfdOptions } from './vm.js';
export { Vcpu, type MsrEntry, type VcpuCounters, type VcpuListener } from './vcpu.js';
export type { KvmPit, PitCalm, PitChange, PitLoad, PitLook, PitOutcome, PitReading } from './pit.js';
export { loadVcpu, restoreVcpu, saveVcpu, type VcpuData } from './vcpu-state.js';
export { loadVm, restoreVm, saveVm, type Channel0, type VmData } from './vm-state.js';
export {
  loadClock,
  restoreClock,
  restoreFrequency,
  saveClock,
  type ClockData,
  type RestoredClock,
} from './clock-state.js';
export { EventFd } from './event-fd.js';
export { sealProcess, type SealOptions } from './seal.js';
export { sendDescriptors, socketPair, type SocketPair } from './socket-pair.js';
export { interfaceExists, TapDevice } from './tap-device.js';
export type { VcpuExit, PortExit, MmioExit, InternalErrorExit } from './exits.js';
export type { PostedAccess } from './posted-ring.js';
