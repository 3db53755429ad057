/** The ids of a machine's lent devices, by which `vm.device(id)` finds them: one name space over all classes. */

export class DeviceIds {
  readonly #seen = new Set<string>();

  /** @throws TypeError for an id that is none, RangeError for one that another device has; both name the option. */
  claim(option: string, id: unknown): string {
    if (typeof id !== 'string' || !/^[A-Za-z0-9][\w.-]{0,19}$/.test(id)) {
      throw new TypeError(`${option}: ${JSON.stringify(id)} is no id; letters, digits, '.', '_' and '-', at most 20`);
    }
    if (this.#seen.has(id)) throw new RangeError(`${option}: '${id}' is the id of another device too`);
    this.#seen.add(id);
    return id;
  }
}
