/**
 * The errors that vivarium raises. Every failure of the machine or the host is a VmmError with a stable `code`;
 * a mistake of the caller is a TypeError or a RangeError, raised before native code is reached.
 * What a guest does wrong is never an exception.
 */
import { constants } from 'node:os';

const ERRNO_NAMES = new Map<number, string>(Object.entries(constants.errno).map(([name, value]) => [value, name]));

/** The name of a positive errno, such as 'ENOSPC'; 'errno 1234' for one that this system does not know. */
export function errnoName(errno: number): string {
  return ERRNO_NAMES.get(errno) ?? `errno ${errno}`;
}

/** Stable codes of {@link VmmError}; programs match on these, never on messages. */
export type VmmErrorCode =
  | 'ERR_KVM' // an ioctl of KVM failed: see KvmError
  | 'ERR_SYSTEM' // another system call failed: see SystemError
  | 'ERR_KVM_UNAVAILABLE' // /dev/kvm is missing or may not be opened
  | 'ERR_KVM_CAPABILITY' // this KVM lacks something that is required
  | 'ERR_ADDON_MISSING' // the native addon is not built
  | 'ERR_CLOSED' // the object was closed
  | 'ERR_STATE' // the object is in a state that does not allow the call
  | 'ERR_ABORTED' // an AbortSignal fired
  | 'ERR_TIMEOUT' // a stated time passed
  | 'ERR_KERNEL_IMAGE' // a kernel, initrd or flat image is unusable
  | 'ERR_GUEST_MEMORY' // an access outside guest memory, or memory that could not be had
  | 'ERR_LINUX_NEEDS_EMBEDDED_HOST' // this KVM cannot run a kernel's ring 0; the embedded host can
  | 'ERR_EMBEDDED_HOST' // the embedded host failed
  | 'ERR_GUEST_FILE' // a file in the guest can't be read, written or listed: see GuestFileError
  | 'ERR_AGENT' // the agent in the guest failed, broke its protocol, or went away with the guest
  | 'ERR_SETUP' // something that `npm run setup` provides is missing
  | 'ERR_DISK_IMAGE' // a disk image is missing, damaged or of the wrong kind
  | 'ERR_DISK_LOCKED' // another process uses the disk image
  | 'ERR_DEVICE' // a device model of ours failed
  | 'ERR_SNAPSHOT' // what was given is no snapshot, or a damaged one; nothing of it was believed
  | 'ERR_SNAPSHOT_VERSION' // a part of a snapshot was written by a version that this one does not know
  | 'ERR_SNAPSHOT_PARENT' // a parent of a snapshot is missing, or is not the one it was made from
  | 'ERR_SNAPSHOT_HOST' // this host lacks what the snapshot's machine was given
  | 'ERR_SNAPSHOT_REFUSED' // a device refused to be saved, or a promise (maxPauseMs) can't be kept
  | 'ERR_PAGER' // guest memory that is still in a snapshot can't be had
  | 'ERR_NO_MACHINE' // no machine of this user that runs has that name
  | 'ERR_FENCED' // the process that holds a machine is not let to, by what it was started with
  | 'ERR_NAME_TAKEN' // a machine of this user that runs has that name already
  | 'ERR_CONTROL'; // the process that holds a machine went away in the middle of a call, or answered what is no answer

/** Base of all failures that are not the caller's mistake. */
export class VmmError extends Error {
  readonly code: VmmErrorCode;
  /** One line that says how to cure the lack, where there is a cure. */
  readonly cure: string | undefined;

  constructor(code: VmmErrorCode, message: string, options: { cause?: unknown; cure?: string } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.code = code;
    this.cure = options.cure;
  }
}

/** A failed KVM ioctl: its name as in linux/kvm.h, and the errno as name and number. */
export class KvmError extends VmmError {
  readonly ioctl: string;
  /** For example 'EINVAL'. */
  readonly errno: string;
  readonly errnoNumber: number;
  /** What the call was about: the MSR index that was refused, a slot number, a capability. */
  readonly detail: string | undefined;

  constructor(ioctl: string, errno: string, errnoNumber: number, detail?: string) {
    super('ERR_KVM', `${ioctl}: ${errno}${detail === undefined ? '' : ` (${detail})`}`);
    this.ioctl = ioctl;
    this.errno = errno;
    this.errnoNumber = errnoNumber;
    this.detail = detail;
  }
}

/** A failed system call that is not an ioctl of KVM: mmap, eventfd, open. */
export class SystemError extends VmmError {
  readonly syscall: string;
  readonly errno: string;
  readonly errnoNumber: number;

  constructor(syscall: string, errno: string, errnoNumber: number, detail?: string) {
    super('ERR_SYSTEM', `${syscall}: ${errno}${detail === undefined ? '' : ` (${detail})`}`);
    this.syscall = syscall;
    this.errno = errno;
    this.errnoNumber = errnoNumber;
  }
}

/** A file in the guest that can't be read, written or listed. */
export class GuestFileError extends VmmError {
  /**
   * Why, by the name of Linux's errno: 'ENOENT', 'EISDIR', 'ENOTDIR', 'EACCES', 'ENOSPC', 'EROFS', ...; 'EFBIG' for what is more than is
   * taken, 'ENOSYS' for a tool that the guest lacks, 'EPROTO' for an answer that is none. Undefined where it is not known.
   */
  readonly errno: string | undefined;

  constructor(message: string, errno: string | undefined, options: { cure?: string } = {}) {
    super('ERR_GUEST_FILE', message, options);
    this.errno = errno;
  }
}

/** The error that an aborted call rejects with; `cause` is the signal's reason. */
export class AbortError extends VmmError {
  constructor(signal?: AbortSignal) {
    super('ERR_ABORTED', 'the call was aborted', { cause: signal?.reason });
  }
}
