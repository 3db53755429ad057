/** The bus room: what a device is, and the maps from addresses to devices. */
export { AddressBus } from './address-bus.js';
export type { AccessResult, AddOptions, AddressBusOptions, DeviceFault } from './address-bus.js';
export { noFastRegisters } from './device.js';
export type { AccessSize, BusDevice, FastRegisters, InterruptLine } from './device.js';
export type { AddressRange } from './range-table.js';
