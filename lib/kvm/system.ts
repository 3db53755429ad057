/**
 * /dev/kvm as an object: what this KVM can do, and new virtual machines. Nothing here chooses for a machine.
 */
import { existsSync } from 'node:fs';
import { Cap, KVM_API_VERSION } from '../abi/kvm.js';
import { SystemError, VmmError } from '../base/errors.js';
import { loadBinding } from './binding.js';
import { decodeCpuid, type CpuidEntry } from './cpuid-rows.js';
import type { NativeSystem } from './native.js';
import { Vm } from './vm.js';

/** The path of the device: VIVARIUM_KVM names another node, for hosts that give it elsewhere. */
export function kvmPath(): string {
  return process.env['VIVARIUM_KVM'] ?? '/dev/kvm';
}

let supportedCpuid: readonly CpuidEntry[] | undefined;

export class Kvm {
  readonly #native: NativeSystem;

  private constructor(native: NativeSystem) {
    this.#native = native;
  }

  /**
   * Opens the device and checks the API version.
   *
   * @throws VmmError ERR_KVM_UNAVAILABLE when it is missing or may not be opened, with the cure;
   *   SystemError for other failures of open (EMFILE); VmmError ERR_ADDON_MISSING.
   */
  static open(path: string = kvmPath()): Kvm {
    const { addon } = loadBinding();
    let native: NativeSystem;
    try {
      native = new addon.System(path);
    } catch (error) {
      throw error instanceof SystemError ? unavailable(path, error) : error;
    }
    const version = native.apiVersion();
    if (version !== KVM_API_VERSION) {
      native.close();
      throw new VmmError('ERR_KVM_UNAVAILABLE', `${path} speaks KVM API ${version}, ${KVM_API_VERSION} is wanted`);
    }
    return new Kvm(native);
  }

  apiVersion(): number {
    return this.#native.apiVersion();
  }

  /** The value of KVM_CHECK_EXTENSION: 0 when absent. */
  checkExtension(capability: number): number {
    return this.#native.checkExtension(capability);
  }

  /** The most vCPUs that one machine may have. */
  maxVcpus(): number {
    return this.checkExtension(Cap.MAX_VCPUS) || this.checkExtension(Cap.NR_VCPUS) || 4;
  }

  /** Asked for once in a process: it is the same for all machines, and costs half a millisecond where CPUID itself traps. */
  supportedCpuid(): CpuidEntry[] {
    supportedCpuid ??= decodeCpuid(this.#native.supportedCpuid());
    return supportedCpuid.map((entry) => ({ ...entry }));
  }

  emulatedCpuid(): CpuidEntry[] {
    return decodeCpuid(this.#native.emulatedCpuid());
  }

  /** Indices that save and restore carry. Some of them the set call may still refuse. */
  msrIndices(): Uint32Array {
    return this.#native.msrIndices();
  }

  featureMsrIndices(): Uint32Array {
    return this.#native.featureMsrIndices();
  }

  /** @throws KvmError whose detail names the index that was refused. */
  readFeatureMsrs(indices: readonly number[]): bigint[] {
    return [...this.#native.readFeatureMsrs(Uint32Array.from(indices))];
  }

  /** A new machine. KVM_CREATE_VM runs on a worker thread. @throws KvmError */
  async createVm(): Promise<Vm> {
    return new Vm(await this.#native.createVmAsync(0));
  }

  /** While held, this environment's event loop does not end: a guest's exits may still come. Counted. */
  holdEventLoop(hold: boolean): void {
    const { runtime } = loadBinding().dispatcher;
    if (hold) runtime.ref();
    else runtime.unref();
  }

  close(): void {
    this.#native.close();
  }
}

function unavailable(path: string, error: SystemError): VmmError {
  const options = (cure: string) => ({ cause: error, cure });
  switch (error.errno) {
    case 'ENOENT':
    case 'ENXIO':
    case 'ENODEV':
      return new VmmError(
        'ERR_KVM_UNAVAILABLE',
        `${path} is not there`,
        options(
          existsSync('/sys/module/kvm')
            ? 'load the module of your processor: `modprobe kvm_amd` or `modprobe kvm_intel`, with virtualization switched on in the firmware; or use `vivarium run --kvm embedded`'
            : 'switch virtualization on in the firmware and `modprobe kvm`; in a virtual machine or a container the host must hand it in; without it use `vivarium run --kvm embedded`',
        ),
      );
    case 'EACCES':
    case 'EPERM':
      return new VmmError(
        'ERR_KVM_UNAVAILABLE',
        `${path} may not be opened by this user`,
        options(
          'join the group that owns it, `sudo usermod -aG kvm $USER`, and log in again; or `setfacl -m u:$USER:rw` on it',
        ),
      );
    default:
      return error;
  }
}
