/** Guest memory: the interface that devices take, and the address space that machines stand on. */
export type { GuestMemory, MemoryRange } from './guest-memory.js';
export type { DeviceMemory } from './device-memory.js';
export { GuestVector, HostVector, type IoVector } from './io-vector.js';
export type { AllocateMode, IoDone, IoEngine } from './io-engine.js';
export { NativeIoEngine, type NativeIoEngineOptions } from './native-io-engine.js';
export { lockFile } from './file-lock.js';
export { AddressSpace, type AddressSpaceOptions, type PageGuard } from './address-space.js';
export { DirtyBitmap } from './dirty-bitmap.js';
export { DirtyEpochs, type DirtyConsumer, type DirtySource } from './dirty-epochs.js';
export { KvmDirtyLog, OwnDirtyLog } from './dirty-sources.js';
export { allGroups, groupCount, groupRuns, GROUP_BYTES } from './groups.js';
export { GuestPager, type LoadCost, type ServeOptions } from './guest-pager.js';
export type { NativeGroupSink, NativeGroupSource } from '../kvm/native-pager.js';
export { userFaultSupport, type Lack, type UserFaultSupport } from './user-fault.js';
export { WriteIntercept, type InterceptStats } from './write-intercept.js';
