/**
 * The vendor capabilities of a virtio function (virtio 1.2, 4.1.4): where its structures are, and the window through
 * which firmware that can't map BARs reaches them by configuration accesses alone (4.1.4.9).
 */
import { PciCapId } from '../abi/pci.js';
import { VirtioPciCap, VirtioPciCapType } from '../abi/virtio-pci.js';
import type { AccessSize } from '../bus/index.js';
import type { ConfigSpace } from './pci/config-space.js';

export interface StructurePlace {
  /** As in VirtioPciCapType. */
  readonly type: number;
  readonly bar: number;
  readonly offset: number;
  readonly length: number;
  /** Four more bytes behind struct virtio_pci_cap. */
  readonly extra?: number;
}

/** struct virtio_pci_cap without id and link. */
export function capabilityBody(place: StructurePlace): Uint8Array {
  const size = place.extra === undefined ? VirtioPciCap.SIZE : VirtioPciCap.SIZE_EXTENDED;
  const whole = new DataView(new ArrayBuffer(size));
  whole.setUint8(2, size);
  whole.setUint8(VirtioPciCap.CFG_TYPE, place.type);
  whole.setUint8(VirtioPciCap.BAR, place.bar);
  whole.setUint32(VirtioPciCap.OFFSET, place.offset, true);
  whole.setUint32(VirtioPciCap.LENGTH, place.length, true);
  if (place.extra !== undefined) whole.setUint32(VirtioPciCap.SIZE, place.extra, true);
  return new Uint8Array(whole.buffer, 2);
}

/** Registers behind BARs, as the window reaches them. */
export interface BarAccess {
  read(bar: number, offset: number, size: AccessSize): number | bigint;
  write(bar: number, offset: number, size: AccessSize, value: number): void;
}

/**
 * Adds the window: an access that touches the first byte of pci_cfg_data is one of `length` bytes at `offset` of `bar`.
 * Where length and offset allow none, reads are 0 and writes do nothing.
 */
export function addPciCfgWindow(config: ConfigSpace, access: BarAccess): void {
  const writable = new Uint8Array(VirtioPciCap.SIZE_EXTENDED - 2);
  writable[VirtioPciCap.BAR - 2] = 0xff;
  writable.fill(0xff, VirtioPciCap.OFFSET - 2);
  const body = capabilityBody({ type: VirtioPciCapType.PCI, bar: 0, offset: 0, length: 0, extra: 0 });
  const at = config.addCapability(PciCapId.VENDOR, body, writable);
  const data = at + VirtioPciCap.PCI_CFG_DATA;
  const target = (): { bar: number; offset: number; size: 1 | 2 | 4 } | undefined => {
    const bar = config.get(at + VirtioPciCap.BAR, 1);
    const offset = config.get(at + VirtioPciCap.OFFSET, 4);
    const size = config.get(at + VirtioPciCap.LENGTH, 4);
    return (size === 1 || size === 2 || size === 4) && offset % size === 0 ? { bar, offset, size } : undefined;
  };
  config.watch(data, 1, {
    onRead() {
      const to = target();
      config.set(data, 4, to ? Number(access.read(to.bar, to.offset, to.size)) : 0);
    },
    onWrite() {
      const to = target();
      if (to) access.write(to.bar, to.offset, to.size, config.get(data, to.size));
    },
  });
}
