/** The host's end of the port that QEMU's guest agent opens in the guest: bytes both ways, and whether somebody is there. */

/** What a Linux guest finds it by: /dev/virtio-ports/NAME. It is what distributions start qemu-ga for. */
export const QEMU_AGENT_PORT = 'org.qemu.guest_agent.0';

export interface QemuAgentPort {
  /** A process in the guest has it open; whether that is an agent is another question. */
  readonly isOpen: boolean;
  /** Hands bytes over, which are copied; resolves when more may come. While nobody has the port open they wait. */
  send(bytes: Uint8Array): Promise<void>;
  /** Called when a process in the guest opens or closes it, also when a restored guest has it open. */
  onOpen: ((isOpen: boolean) => void) | undefined;
  /** Called with bytes from the guest, which are valid during the call. */
  onReceive: ((bytes: Uint8Array) => void) | undefined;
}
