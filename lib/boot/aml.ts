/**
 * An encoder for the ACPI Machine Language: each function returns the bytes of one term, terms nest by being passed on.
 * Devices build their part of the DSDT with it (see AcpiContributor in acpi.ts); it writes AML and never reads any.
 * Names of functions follow the operators of ASL; section numbers are those of ACPI 6.5, chapter 20.
 */
import { AmlExtOp, AmlFieldAccess, AmlFieldUpdate, AmlOp, AmlRegionSpace } from '../abi/aml.js';
import { type Aml, name, packaged, type Term, term, terms } from './aml-data.js';
import { concatBytes, littleEndian } from './bytes.js';

export { type Aml, buffer, eisaId, integer, name, packageOp, pkgLength, string, type Term, terms } from './aml-data.js';
export * from './aml-resources.js';

/** Scope (path) {terms}. */
export function scope(path: string, ...body: readonly Term[]): Aml {
  return packaged([AmlOp.SCOPE], name(path), terms(...body));
}

/** Device (path) {terms}. */
export function device(path: string, ...body: readonly Term[]): Aml {
  return packaged([AmlOp.EXT_PREFIX, AmlExtOp.DEVICE], name(path), terms(...body));
}

/** Name (path, value). */
export function nameDecl(path: string, value: Term): Aml {
  return concatBytes([AmlOp.NAME], name(path), term(value));
}

/** Method (path, args, Serialized or NotSerialized) {terms}; the sync level is 0. */
export function method(path: string, options: { args?: number; serialized?: boolean }, ...body: readonly Term[]): Aml {
  const args = options.args ?? 0;
  if (!Number.isInteger(args) || args < 0 || args > 7) throw new RangeError(`${args} arguments: a method takes 0 to 7`);
  const flags = args | (options.serialized === true ? 8 : 0);
  return packaged([AmlOp.METHOD], name(path), Uint8Array.of(flags), terms(...body));
}

/** Return (value). */
export function returnOp(value: Term): Aml {
  return concatBytes([AmlOp.RETURN], term(value));
}

/** Local0 to Local7. */
export function local(index: number): Aml {
  if (!Number.isInteger(index) || index < 0 || index > 7) throw new RangeError(`Local${index} does not exist`);
  return Uint8Array.of(AmlOp.LOCAL0 + index);
}

/** Arg0 to Arg6. */
export function arg(index: number): Aml {
  if (!Number.isInteger(index) || index < 0 || index > 6) throw new RangeError(`Arg${index} does not exist`);
  return Uint8Array.of(AmlOp.ARG0 + index);
}

/** A call of a method by its path; the interpreter knows the number of arguments from its declaration. */
export function call(path: string, ...args: readonly Term[]): Aml {
  return concatBytes(name(path), terms(...args));
}

/** Store (source, target). The target is a name, a local or an argument. */
export function store(source: Term, target: Aml): Aml {
  return concatBytes([AmlOp.STORE], term(source), target);
}

/** Notify (object, value). */
export function notify(path: string, value: Term): Aml {
  return concatBytes([AmlOp.NOTIFY], name(path), term(value));
}

/** No target: the result is only the value of the term. */
const NULL_TARGET: Aml = Uint8Array.of(AmlOp.ZERO);

function binary(opcode: number) {
  return (left: Term, right: Term, target: Aml = NULL_TARGET): Aml =>
    concatBytes([opcode], term(left), term(right), target);
}

function logical(opcode: number) {
  return (left: Term, right: Term): Aml => concatBytes([opcode], term(left), term(right));
}

/** Binary operators: And (left, right, target) and so on; without a target the value is used in place. */
export const and = binary(AmlOp.AND);
export const or = binary(AmlOp.OR);
export const add = binary(AmlOp.ADD);
export const subtract = binary(AmlOp.SUBTRACT);
export const shiftLeft = binary(AmlOp.SHIFT_LEFT);
export const shiftRight = binary(AmlOp.SHIFT_RIGHT);

/** Logical operators: values for ifOp and whileOp. */
export const equal = logical(AmlOp.LEQUAL);
export const greater = logical(AmlOp.LGREATER);
export const less = logical(AmlOp.LLESS);
export const logicalAnd = logical(AmlOp.LAND);
export const logicalOr = logical(AmlOp.LOR);

export function not(value: Term): Aml {
  return concatBytes([AmlOp.LNOT], term(value));
}

/** If (condition) {terms}. */
export function ifOp(condition: Term, ...body: readonly Term[]): Aml {
  return packaged([AmlOp.IF], term(condition), terms(...body));
}

/** Else {terms}; stands right after an ifOp. */
export function elseOp(...body: readonly Term[]): Aml {
  return packaged([AmlOp.ELSE], terms(...body));
}

/** While (condition) {terms}. */
export function whileOp(condition: Term, ...body: readonly Term[]): Aml {
  return packaged([AmlOp.WHILE], term(condition), terms(...body));
}

/** OperationRegion (path, space, offset, length). */
export function operationRegion(
  path: string,
  space: keyof typeof AmlRegionSpace,
  offset: Term,
  lengthBytes: Term,
): Aml {
  return concatBytes(
    [AmlOp.EXT_PREFIX, AmlExtOp.OPERATION_REGION],
    name(path),
    [AmlRegionSpace[space]],
    term(offset),
    term(lengthBytes),
  );
}

/** One unit of a field: a name of four characters at most, or undefined for reserved bits. */
export interface FieldUnit {
  readonly name?: string;
  readonly bits: number;
}

/** Field (region, access, Lock or NoLock, update) {units}, the units following one another from bit 0. */
export function field(
  region: string,
  options: { access: keyof typeof AmlFieldAccess; lock?: boolean; update?: keyof typeof AmlFieldUpdate },
  units: readonly FieldUnit[],
): Aml {
  const flags =
    AmlFieldAccess[options.access] |
    (options.lock === true ? 0x10 : 0) |
    (AmlFieldUpdate[options.update ?? 'PRESERVE'] << 5);
  const list = units.map((unit) =>
    concatBytes(unit.name === undefined ? [0] : segment(unit.name), bitLength(unit.bits)),
  );
  return packaged([AmlOp.EXT_PREFIX, AmlExtOp.FIELD], name(region), Uint8Array.of(flags), ...list);
}

function segment(text: string): Aml {
  if (!/^[A-Z_][A-Z0-9_]{0,3}$/.test(text)) throw new RangeError(`'${text}' is no ACPI name segment`);
  return name(text);
}

/** The length of a field unit: coded as a PkgLength, but counting bits and not itself. */
function bitLength(bits: number): Aml {
  if (!Number.isInteger(bits) || bits < 0 || bits >= 2 ** 28) throw new RangeError(`a field of ${bits} bits`);
  if (bits <= 0x3f) return Uint8Array.of(bits);
  const following = bits < 2 ** 12 ? 1 : bits < 2 ** 20 ? 2 : 3;
  return concatBytes([(following << 6) | (bits & 0xf)], littleEndian(Math.floor(bits / 16), following));
}

/** CreateDWordField (buffer, byteIndex, name). */
export function createDwordField(source: Term, byteIndex: Term, path: string): Aml {
  return concatBytes([AmlOp.CREATE_DWORD_FIELD], term(source), term(byteIndex), name(path));
}

/** Mutex (path, syncLevel). */
export function mutex(path: string, syncLevel = 0): Aml {
  return concatBytes([AmlOp.EXT_PREFIX, AmlExtOp.MUTEX], name(path), [syncLevel & 0xf]);
}

/** Acquire (path, timeoutMs); 0xffff waits for ever. */
export function acquire(path: string, timeoutMs = 0xffff): Aml {
  return concatBytes([AmlOp.EXT_PREFIX, AmlExtOp.ACQUIRE], name(path), littleEndian(timeoutMs, 2));
}

/** Release (path). */
export function release(path: string): Aml {
  return concatBytes([AmlOp.EXT_PREFIX, AmlExtOp.RELEASE], name(path));
}
