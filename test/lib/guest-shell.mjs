/** A shell in a guest, spoken to over its serial console: what a command printed, and its status. */

export class GuestShell {
  #vm;
  #commands = 0;

  constructor(vm) {
    this.#vm = vm;
  }

  /**
   * The default guest's shell, when it listens; `boot` counts the guest's boots from 0.
   *
   * @returns {Promise<GuestShell>}
   */
  static async ready(vm, { boot = 0, timeoutMs = 200_000 } = {}) {
    vm.console.write(`stty -echo; PS1=; echo "<up-$((${boot}+100))>"\n`);
    await vm.console.waitFor(new RegExp(`<up-${boot + 100}>`), { timeoutMs });
    const shell = new GuestShell(vm);
    // Numbers of another boot stand in the console's history.
    shell.#commands = boot * 1000;
    return shell;
  }

  /** Types a command and waits for its end. @throws Error with what it printed when it fails. */
  async run(command, { timeoutMs = 120_000 } = {}) {
    const number = ++this.#commands;
    this.#vm.console.write(`echo "<begin ${number}>"; { ${command}\n} 2>&1; echo "<end ${number} $?>"\n`);
    const pattern = new RegExp(`<begin ${number}>\\r?\\n([^]*)<end ${number} (\\d+)>`);
    const [, output, status] = await this.#vm.console.waitFor(pattern, { timeoutMs });
    const text = output.replaceAll('\r\n', '\n');
    if (status !== '0') throw new Error(`'${command}' ended with ${status}:\n${text}`);
    return text.trimEnd();
  }
}
