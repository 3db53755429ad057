/**
 * The shape of the native addon: what `native/bindings/` exports, and the layout of the memory it shares with JavaScript.
 * Mechanism only. `binding.ts` alone loads it; `system.ts`, `vm.ts` and `vcpu.ts` make it typed and checked.
 * The PIT's part is in native-pit.ts, the pager's in native-pager.ts, that of snapshots in native-snapshot.ts. Guest physical
 * addresses, offsets and sizes are numbers (exact to 2^53); registers and counters are bigint.
 */

import type { NativeGroupStore, NativePagerClasses } from './native-pager.js';
import type { NativePit } from './native-pit.js';
import type { NativeGroupReader, NativeGroupWriter, NativeGroupWriterOptions } from './native-snapshot.js';

/** Makes the error that a failing native call throws or rejects with; handed to the addon once per environment. */
export type NativeErrorFactory = (
  kind: 'ioctl' | 'syscall' | 'closed' | 'state' | 'capability',
  name: string,
  errno: string,
  errnoNumber: number,
  detail: string | undefined,
) => Error;

export interface NativeAddon extends NativePagerClasses {
  /** sizeof() of the KVM structures that cross the border, by C name, so that a test can hold the codecs against them. */
  readonly structSizes: Readonly<Record<string, number>>;
  /** Per environment (main thread or Worker): the error factory and the doorbell. Called once by binding.ts. */
  initialize(errorFactory: NativeErrorFactory, onDoorbell: () => void): NativeRuntime;
  readonly System: new (path: string) => NativeSystem;
  readonly Memory: new (options: NativeMemoryOptions) => NativeMemory;
  readonly EventFd: new (initial?: number) => NativeEventFd;
  /** 'auto' takes threads where the kernel offers no io_uring; naming a kind that can't be had is a SystemError. */
  readonly IoQueue: new (memory: NativeMemory, kind: 'auto' | 'io_uring' | 'threads') => NativeIoQueue;
  /** if_nametoindex(3): 0 where there is no network interface of that name. */
  interfaceIndex(name: string): number;
  /** See socket-pair.ts. SystemError. */
  socketPair(sendBufferBytes: number): { readonly own: number; readonly other: number };
  /** sendmsg(2) with SCM_RIGHTS, without waiting: of at most 16 descriptors. SystemError. */
  sendDescriptors(socket: number, bytes: Uint8Array, descriptors: Uint32Array): void;
  /** TUNSETIFF on /dev/net/tun: takes the interface, or makes it where there is none. SystemError. */
  readonly Tap: new (name: string, flags: number) => NativeTap;
  /**
   * Takes or changes the advisory lock of an open file description on the whole file (F_OFD_SETLK), without waiting:
   * false when another one stands in the way.
   */
  lockFile(fd: number, exclusive: boolean): boolean;
  /** renameat2(2), RENAME_NOREPLACE or RENAME_EXCHANGE: 0, or the errno. */
  renameAt(from: string, to: string, exchange: boolean): number;
  /** See seal.ts: 0, or the errno. */
  sealProcess(connects: boolean, taps: boolean): number;
  /** CRC-32C (Castagnoli); `byTable`: without or with the CPU's instruction, by default as is faster here. */
  crc32c(bytes: Uint8Array, byTable?: boolean): number;
  /** Whether libzstd.so.1 can be loaded. */
  zstdAvailable(): boolean;
  readonly GroupWriter: new (memory: NativeMemory, options: NativeGroupWriterOptions) => NativeGroupWriter;
  /** `rows`: see GroupRow, each zero, raw or zstd; `fds` are duplicated. ERR_KVM_CAPABILITY where zstd is missing. */
  readonly GroupReader: new (fds: Uint32Array, rows: Uint8Array, threads: number) => NativeGroupReader;
}

/**
 * What wakes JavaScript. Sources (vCPUs, machines' posted rings, watched eventfds) that need attention stand in one
 * queue per environment, each at most once; the doorbell rings when the queue turns from empty to not empty.
 */
export interface NativeRuntime {
  /**
   * Takes the next source out of the queue: its id, or 0 when there is none. When the queue is empty it spins up to
   * `spinNs` for one to arrive, so that a side that has just served an exit catches the next without a wake-up.
   */
  next(spinNs: number): number;
  /** How long a vCPU that waits for JavaScript spins before it sleeps. 0 on one-CPU machines. */
  setVcpuSpin(spinNs: number): void;
  /** The source id under which the eventfd stands in the queue after each signal. Its counter is not read. */
  watch(eventFd: NativeEventFd): number;
  unwatch(sourceId: number): void;
  /** A doorbell keeps the event loop alive only while this is above zero. */
  ref(): void;
  unref(): void;
  /** Live native objects of this environment, for leak tests. */
  counts(): {
    systems: number;
    vms: number;
    vcpus: number;
    threads: number;
    mappings: number;
    eventFds: number;
    ioQueues: number;
    taps: number;
    groupPools: number;
    groupStores: number;
  };
}

export interface NativeSystem {
  apiVersion(): number;
  checkExtension(capability: number): number;
  vcpuMmapSize(): number;
  /** Rows of seven: function, index, flags, eax, ebx, ecx, edx (struct kvm_cpuid_entry2). */
  supportedCpuid(): Uint32Array;
  emulatedCpuid(): Uint32Array;
  msrIndices(): Uint32Array;
  featureMsrIndices(): Uint32Array;
  /** KVM_GET_MSRS on the system fd; the error's detail names the index that was refused. */
  readFeatureMsrs(indices: Uint32Array): BigUint64Array;
  createVm(type: number): NativeVm;
  /** The same on a worker thread. */
  createVmAsync(type: number): Promise<NativeVm>;
  close(): void;
}

export interface NativeMemoryOptions {
  readonly sizeBytes: number;
  readonly backing: 'anonymous' | 'memfd';
  /** In place of both: a clone's memory, of the store's size, which a pager has to serve before it is touched. */
  readonly store?: NativeGroupStore | undefined;
  /** madvise(MADV_HUGEPAGE); advice that the kernel may refuse. */
  readonly hugePages: boolean;
}

/** One mapping of guest memory, with the dirty bitmap of user space beside it. */
export interface NativeMemory {
  readonly sizeBytes: number;
  /** The memfd's descriptor, or -1. */
  readonly fd: number;
  /** A view without a copy; it is detached (length 0) by close(). At most 4 GiB each. Never hand it out of lib/memory. */
  view(offset: number, length: number): ArrayBuffer;
  /** One bit for each 4 KiB page, in 64-bit words; written by user space only. */
  dirtyBitmap(): ArrayBuffer;
  close(): void;
}

export interface NativeEventFd {
  readonly fd: number;
  /** Adds `count`, 1 when none is given. */
  write(count?: bigint): void;
  /** The counter, reset to 0; 0n when nothing was signalled. Never blocks. */
  read(): bigint;
  close(): void;
}

/**
 * Requests of file input and output between files and one mapping of guest memory, prepared and checked by lib/memory,
 * checked against the mapping once more by native code. See IoArea. Holds the mapping until close().
 */
export interface NativeIoQueue {
  /** Stands in the runtime's queue when reap() has something to give. */
  readonly sourceId: number;
  readonly kind: 'io_uring' | 'threads';
  /** Why 'auto' took threads; empty where it did not. */
  readonly refusal: string;
  /** Shared with native code, layout below, used by both on the JavaScript thread alone. Detached by close(). */
  area(): ArrayBuffer;
  /**
   * Hands over the first `count` records of the area, whose parts may be written anew afterwards. What has completed by
   * then is in the area's completions, as after reap().
   *
   * @throws RangeError for a piece outside the memory or a tag in use; nothing is handed over then.
   */
  submit(count: number): number;
  /** Writes what has completed since into the area's completions; how many there are. */
  reap(): number;
  /** Cancels what can be cancelled and waits for the rest. Idempotent. */
  close(): void;
}

/** A tap interface, and what its frames are read with. Every call may be a SystemError. */
export interface NativeTap {
  /** Stands in the runtime's queue, once, when frames have come, or a change. */
  readonly sourceId: number;
  /** As the interface is called now. */
  name(): string;
  /** TUNSETVNETHDRSZ */
  setHeaderBytes(bytes: number): void;
  /** TUNSETOFFLOAD */
  setOffloads(flags: number): void;
  /** SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCGIFMTU */
  interfaceFlags(): number;
  setInterfaceFlags(flags: number): void;
  mtuBytes(): number;
  /**
   * Frames with their headers into `slab`, one behind the other, their lengths into `lengths`, as long as there is room
   * for one of `maxFrameBytes`. How many, or -1 less that number when there are no more for now.
   */
  read(slab: Uint8Array, maxFrameBytes: number, lengths: Uint32Array): number;
  /** One frame; 0, or the errno. */
  write(header: Uint8Array, frame: Uint8Array): number;
  /** Whether any interface of the namespace has changed since the last call. */
  changed(): boolean;
  /** Idempotent. */
  close(): void;
}

/** Fixed-size structures, in and out: `request` is the name as in linux/kvm.h, 'KVM_GET_PIT2'. */
export interface NativeStructIoctls {
  /**
   * Issues an ioctl whose argument is one structure of fixed size (see native/kvm/ioctl_table). For a get the input is
   * optional (KVM_GET_IRQCHIP takes the chip id in it); the structure is returned. For a set the input is wanted.
   */
  ioctl(request: string, input?: Uint8Array): Uint8Array;
  /** Issues an ioctl whose argument is a number or nothing; its return value. */
  ioctlValue(request: string, argument?: number): number;
}

export interface NativeVm extends NativeStructIoctls {
  /** Stands in the runtime's queue when its posted ring has entries. */
  readonly sourceId: number;
  /** Shared with the vCPU threads; layouts below. Detached by close(). */
  readonly portFlags: ArrayBuffer;
  readonly portValues: ArrayBuffer;
  readonly postedControl: ArrayBuffer;
  readonly postedRing: ArrayBuffer;
  readonly readQueues: ArrayBuffer;
  checkExtension(capability: number): number;
  enableCap(capability: number, flags: number, args: BigUint64Array): void;
  /** KVM_SET_USER_MEMORY_REGION; sizeBytes 0 removes the slot. The VM holds the mapping until the slot goes. */
  setMemorySlot(
    slot: number,
    flags: number,
    gpa: number,
    memory: NativeMemory,
    offset: number,
    sizeBytes: number,
  ): void;
  setMemorySlotAsync(
    slot: number,
    flags: number,
    gpa: number,
    memory: NativeMemory,
    offset: number,
    sizeBytes: number,
  ): Promise<void>;
  /** Rows: struct kvm_irq_routing_entry as bytes, 48 each. */
  setGsiRouting(entries: Uint8Array): void;
  irqfd(eventFd: NativeEventFd, gsi: number, flags: number, resample?: NativeEventFd): void;
  /** KVM_IOEVENTFD; without datamatch every write signals. */
  ioeventfd(eventFd: NativeEventFd, address: number, length: number, flags: number, datamatch?: bigint): void;
  /** KVM_GET_DIRTY_LOG of a slot: one bit a page, in 64-bit words. */
  getDirtyLog(slot: number, sizeBytes: number): BigUint64Array;
  /** KVM_CLEAR_DIRTY_LOG: firstPage and pages as the API wants them (multiples of 64, or up to the end). */
  clearDirtyLog(slot: number, firstPage: number, pages: number, bitmap: BigUint64Array): void;
  /** Reads the coalesced ring into the posted ring now; the vCPU threads and the epoll thread do so by themselves. */
  drainCoalesced(): void;
  /** Tells waiting vCPU threads that JavaScript has moved POSTED_TAIL on. */
  postedConsumed(): void;
  /** Every value of KVM_GET_STATS_FD by name; histograms as arrays. */
  stats(): Record<string, bigint | BigUint64Array>;
  createVcpu(id: number, threadName: string): NativeVcpu;
  /** The steering of the kernel's PIT: once a VM, on one that has it. */
  openPit(): NativePit;
  /** Stops and joins the vCPU threads, closes their fds and the VM's. Idempotent. */
  close(): void;
  closeAsync(): Promise<void>;
}

export interface NativeVcpu extends NativeStructIoctls {
  readonly id: number;
  readonly sourceId: number;
  /** The kvm_run mapping: struct kvm_run, the PIO data page, the coalesced ring. */
  readonly run: ArrayBuffer;
  /** See VcpuControl. */
  readonly control: ArrayBuffer;
  /** Struct ioctls and these throw ERR_STATE while the vCPU is not parked, stopped, or waiting in an exit. */
  setCpuid(rows: Uint32Array): void;
  getCpuid(): Uint32Array;
  /** KVM_GET_MSRS; the error's detail names the index that was refused. */
  readMsrs(indices: Uint32Array): BigUint64Array;
  writeMsrs(indices: Uint32Array, values: BigUint64Array): void;
  /** KVM_GET_XSAVE2 in the size that the VM reports. */
  getXsave(): Uint8Array;
  setXsave(bytes: Uint8Array): void;
  /** KVM_GET_DEVICE_ATTR and KVM_SET_DEVICE_ATTR of the vCPU with a 64-bit value (group 0, attribute 0: the TSC offset). */
  getDeviceAttr(group: number, attribute: number): bigint;
  setDeviceAttr(group: number, attribute: number, value: bigint): void;
  stats(): Record<string, bigint | BigUint64Array>;
  /** One of them, read alone; undefined where this KVM has none of that name. */
  stat(name: string): bigint | undefined;
  /** Starts the thread on first use; afterwards un-parks. The vCPU enters KVM_RUN. */
  resume(): void;
  /**
   * Asks the thread to leave KVM_RUN and park: it completes pending port or MMIO accesses first, drains the coalesced
   * ring, then sets STATE to parked and enters the queue. A vCPU whose thread was never started is parked already.
   */
  park(): void;
  /** Forces the vCPU out of KVM_RUN once; it re-enters by itself. */
  kick(): void;
  /** JavaScript has served the exit (answers are in `run`): the vCPU goes on. Only in state exit. */
  complete(): void;
  /** CPU time of the vCPU's thread in ns; 0n before it started. */
  threadCpuNs(): bigint;
  /** Kernel thread id, or 0. */
  readonly threadId: number;
}

/** Byte offsets into NativeVcpu.control. */
export const VcpuControl = {
  /** Int32, see VcpuState. Written by native code. */
  STATE: 0,
  /** Int32: errno of a KVM_RUN that failed, when STATE is failed. */
  RUN_ERRNO: 4,
  /** BigUint64: KVM_RUN returns of any kind. */
  EXITS: 8,
  /** BigUint64: exits answered by the thread itself (published, posted, ignored, EINTR). */
  EXITS_NATIVE: 16,
  /** BigUint64: exits handed to JavaScript. */
  EXITS_SCRIPT: 24,
  /** BigUint64: signals taken in KVM_RUN. */
  KICKS: 32,
  /** REASON_SLOTS of BigUint64: exits by KVM_EXIT_*, in the last one all that are beyond it. */
  REASONS: 40,
  REASON_SLOTS: 59,
  SIZE: 512,
} as const;

export const VcpuState = {
  /** The thread was never started, or has parked on request. State may be read and written. */
  PARKED: 0,
  /** In KVM_RUN or on the way. */
  RUNNING: 1,
  /** An exit waits in `run` for JavaScript. */
  EXIT: 2,
  /** KVM_RUN failed with RUN_ERRNO (EINTR and EAGAIN never do). The thread waits; only close follows. */
  FAILED: 3,
} as const;

/** Flags in NativeVm.portFlags, one byte for each of the 65536 ports. They concern accesses of one byte, count 1. */
export const PortFlag = {
  /** Reads are answered with the byte in portValues. */
  PUBLISHED: 1,
  /** Writes go into the posted ring and the vCPU goes on. */
  POSTED: 2,
  /** Writes are dropped. */
  IGNORED: 4,
  /** Reads take the next byte of the port's read queue; when it is empty, PUBLISHED decides. */
  QUEUED: 8,
} as const;

/**
 * Queues of values for reads, in NativeVm.readQueues: COUNT of them, STRIDE bytes each, each for one port. HEAD and TAIL are
 * free-running Uint32 counters; the byte of a counter is at DATA + counter % CAPACITY.
 */
export const ReadQueueLayout = {
  COUNT: 4,
  STRIDE: 512,
  /** Behind the last byte that waits; moved by JavaScript, back as well: a head behind the tail is an empty queue. */
  HEAD: 0,
  /** The port; 0 while the queue is nobody's. */
  PORT: 4,
  /** The next byte that a read takes; moved by native code. */
  TAIL: 64,
  DATA: 128,
  CAPACITY: 256,
} as const;

/** Byte offsets into NativeVm.postedControl; both are free-running Uint32 counters, entry index = counter % CAPACITY. */
export const PostedControl = {
  /** Next entry that will be written; moved by native code with release. */
  HEAD: 0,
  /** Next entry that JavaScript will read; moved by JavaScript. A full ring holds the vCPU until it moves. */
  TAIL: 64,
  /** Int32: not 0 while a vCPU thread waits for room; then JavaScript calls postedConsumed(). */
  WAITERS: 68,
  SIZE: 128,
} as const;

/** One entry of NativeVm.postedRing: 24 bytes, little endian. Posted port writes and coalesced zones share the ring. */
export const PostedEntry = {
  /** u64: port or guest physical address. */
  ADDRESS: 0,
  /** u64: the value, zero-extended. */
  VALUE: 8,
  /** u32: access size in bytes. */
  SIZE_BYTES: 16,
  /** u32: 0 a port, 1 MMIO. */
  SPACE: 20,
  STRIDE: 24,
  CAPACITY: 4096,
} as const;

/** Byte offsets into NativeIoQueue.area(), little endian. */
export const IoArea = {
  /** Requests that may be under way at once, each with a tag of its own from 0 to ENTRIES - 1. */
  ENTRIES: 256,
  /** Pieces that one batch may have, and one record of it (IOV_MAX of Linux). */
  PIECES: 4096,
  RECORD_PIECES: 1024,
  RECORDS_AT: 0,
  PIECES_AT: 10_240,
  COMPLETIONS_AT: 75_776,
  SIZE: 77_824,
} as const;

/** One record: 40 bytes. */
export const IoRecord = {
  /** u32, see IoOp. */
  OP: 0,
  /** i32 */
  FD: 4,
  /** u64: where in the file. */
  OFFSET: 8,
  /** u64, of PUNCH_HOLE and ZERO_RANGE. */
  LENGTH: 16,
  /** u32, of READ and WRITE: index of the first piece in the area, and how many follow one another. */
  FIRST_PIECE: 24,
  PIECE_COUNT: 28,
  /** u32 */
  TAG: 32,
  STRIDE: 40,
} as const;

export const IoOp = {
  /** preadv(2) */
  READ: 0,
  /** pwritev(2) */
  WRITE: 1,
  /** fdatasync(2) */
  SYNC: 2,
  /** fallocate(2), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE */
  PUNCH_HOLE: 3,
  /** fallocate(2), FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE */
  ZERO_RANGE: 4,
} as const;

/** One piece of the memory: u64 offset in the mapping, u64 length in bytes. */
export const IoPiece = { OFFSET: 0, LENGTH: 8, STRIDE: 16 } as const;

/** One completion: u32 tag; i32 bytes moved, or a negated errno. */
export const IoCompletion = { TAG: 0, RESULT: 4, STRIDE: 8 } as const;
