/** Guest memory: the interface that devices take, and the address space that machines stand on. */
export type { GuestMemory, MemoryRange } from './guest-memory.js';
export type { DeviceMemory } from './device-memory.js';
export { GuestVector, HostVector, type IoVector } from './io-vector.js';
export type { AllocateMode, IoDone, IoEngine } from './io-engine.js';
export { NativeIoEngine, type NativeIoEngineOptions } from './native-io-engine.js';
export { lockFile } from './file-lock.js';
export { AddressSpace, type AddressSpaceOptions } from './address-space.js';
export { canCompress, GroupWriter, type GroupWriterOptions, type GroupWriterTotals } from './group-writer.js';
export { GroupReader, GroupReadError, type GroupLoadOptions, type GroupReaderFile } from './group-reader.js';
export { renameExchange, renameNoReplace } from './rename.js';
export { crc32c } from './checksum.js';
