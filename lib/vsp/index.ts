/** Device classes as contracts, their providers, backends (HAL) and emulation (HEL): what proxies, machines and users take. */
export type { BackendDescription, DeviceContract, FunctionReport, ServedBy } from './contract.js';
export {
  BLOCK_FUNCTIONS,
  SECTOR_BYTES,
  type BlockBackend,
  type BlockDone,
  type BlockError,
  type BlockErrorCode,
  type BlockFunction,
  type BlockGeometry,
  type BlockService,
} from './block/contract.js';
export { waitFor, type WaitLimits } from './deadline.js';
export { quiesce, type PrepareOptions, type Quiescable, type QuiesceOptions } from './quiesce.js';
export { CLOSE_MS } from './block/closing.js';
export { lockImages } from './block/lock-images.js';
export type { BlockOpenContext, BlockSource } from './block/source.js';
export { beginCut, type CutOptions, type DiskCut, type PendingCut } from './block/cut.js';
export {
  type DiskReference,
  diskReferenceState,
  restoreDisk,
  type RestoredDisk,
  type RestoreDiskOptions,
} from './block/disk-reference.js';
export { BlockProvider, type BlockProviderOptions } from './block/provider.js';
export type { RebindOptions, RebindReport } from './block/rebind.js';
export { fileDisk, type FileDiskOptions } from './block/file.js';
export type { LockFile, LockMode } from './block/image-lock.js';
export { memoryDisk, type MemoryDisk } from './block/memory.js';
export { createQcow2Overlay, qcow2Disk, type Qcow2DiskOptions, type Qcow2OverlayOptions } from './block/qcow2/index.js';
export {
  sharedDisk,
  type SharedDisk,
  type SharedDiskOptions,
  type SharedGuestOptions,
  type TakeBackOptions,
} from './block/shared-disk.js';
export {
  checkDirectionLimits,
  checkTrafficLimits,
  type DirectionLimits,
  type TrafficLimits,
} from './sharing/budget.js';
export { faultyDisk } from './block/faulty.js';
export type { Fault, FaultPlan, FaultRule, FaultyFunction } from './block/fault-plan.js';
export type {
  ConsoleBackend,
  ConsoleGuestEnd,
  ConsoleHostEnd,
  ConsolePortService,
  ConsoleSize,
  ConsoleSource,
} from './console/contract.js';
export { ConsoleProvider, type ConsolePortOptions, type ConsoleProviderOptions } from './console/provider.js';
export { ConsolePort } from './console/port.js';
export {
  CallbackConsole,
  callbackConsole,
  stdioConsole,
  streamConsole,
  type StdioStreams,
  type StreamConsoleOptions,
} from './console/stream.js';
export { AgentPortBackend } from './console/agent-port.js';
export { fileConsole } from './console/file.js';
export { unixSocketConsole } from './console/unix-socket.js';
export type { EntropyBackend, EntropyService, EntropySource } from './entropy/contract.js';
export { EntropyProvider, type EntropyProviderOptions, type EntropyRate } from './entropy/provider.js';
export { passt, type PasstForward, type PasstOptions } from './net/passt.js';
export { tap, type TapOptions } from './net/tap.js';
export { hostEntropy, openHostEntropy } from './entropy/host.js';
export type { NetAbilities, NetBackend, NetFrame, NetHostEnd } from './net/contract.js';
export { carriedNetwork, type CarriedNetwork, type CarriedSuccessor } from './net/carried.js';
export { MAX_CARRIED_CHANGE } from './net/carried-frames.js';
export { type CarriedRelay, type CarriedStreams, carryNetwork } from './net/carry-network.js';
export { formatMac, isGroupMac, parseMac } from './net/mac-address.js';
export { macAt } from './net/mac-filter.js';
export { NetLimiter } from './net/limiter.js';
export { networkSwitch, type NetworkSwitchOptions } from './net/network-switch.js';
export { NetProvider, type NetProviderOptions } from './net/provider.js';
export { recordedNetwork } from './net/recorder.js';
export {
  sharedNetwork,
  type SharedNetwork,
  type SharedNetworkGuestOptions,
  type SharedNetworkOptions,
  type TakeNetworkBackOptions,
} from './net/shared-network.js';
export type { NetOpenContext, NetSource } from './net/source.js';
