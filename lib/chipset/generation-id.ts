/**
 * The virtual machine generation ID: 16 bytes in guest memory that never were there before in any machine, and an event when
 * they change, so that a clone knows that it is one ("Virtual Machine Generation ID", Microsoft, 2012; QEMU's docs/specs/vmgenid).
 * Linux mixes them into its random numbers at once. Only machines with ACPI tables have it: elsewhere the memory is the guest's.
 *
 *   restore -> renew(): new bytes in guest memory -> GPE -> \_GPE._E05: Notify (VGEN) -> driver reads them
 */
import { randomBytes } from 'node:crypto';
import { Gpe } from '../abi/ports.js';
import { device, method, nameDecl, notify, packageOp, scope, string } from '../boot/aml.js';
import type { AcpiContributor } from '../boot/acpi.js';
import { LowMemory } from '../boot/layout.js';
import type { GuestMemory } from '../memory/guest-memory.js';

const ID_BYTES = 16;

export class GenerationId {
  readonly #memory: GuestMemory;
  readonly #raise: (event: number) => void;

  /** `raise`: a general purpose event. */
  constructor(memory: GuestMemory, raise: (event: number) => void) {
    this.#memory = memory;
    this.#raise = raise;
  }

  /** With the tables, before the guest runs: its first id. */
  begin(): void {
    this.#memory.write(LowMemory.GENERATION_ID, randomBytes(ID_BYTES));
  }

  /** The machine was restored: another id, of which the guest is told. Before any of its CPUs runs. */
  renew(): void {
    this.begin();
    this.#raise(Gpe.GENERATION_ID);
  }
}

/** Linux knows the driver by the compatible id; the hardware id is each monitor's own. */
export const generationIdAcpi: AcpiContributor = {
  dsdt: () => [
    scope(
      '\\_SB',
      device(
        'VGEN',
        nameDecl('_HID', string('VIVM0001')),
        nameDecl('_CID', string('VM_Gen_Counter')),
        nameDecl('_DDN', string('VM_Gen_Counter')),
        nameDecl('ADDR', packageOp([LowMemory.GENERATION_ID, 0])),
      ),
    ),
    scope('\\_GPE', method(`_E0${Gpe.GENERATION_ID}`, {}, notify('\\_SB.VGEN', 0x80))),
  ],
};
