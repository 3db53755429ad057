/**
 * The layer rule of lib/, as an ESLint rule: a room imports itself and the rooms before it, nothing else.
 * Deny by default: a folder that is no room, a package that is not listed, a path out of lib/ are all refused.
 * Exceptions are options of the rule, so that they stand in eslint.config.js with their reason. It resolves
 * specifiers by their text alone and reads no file.
 */
import path from 'node:path';

/** The rooms of lib/, lowest first. ARCHITECTURE.md says what each is for. */
export const ROOMS = [
  'base',
  'abi',
  'kvm',
  'memory',
  'boot',
  'bus',
  'chipset',
  'agent',
  'time',
  'vsp',
  'vdp',
  'snapshot',
  'machine',
  'images',
  'host',
  'control',
  'api',
  'dashboard',
  'cli',
];

/** Where a path (relative to the repository, '/' between its parts) stands. */
export function placeOf(file) {
  const parts = file.split('/');
  if (parts[0] !== 'lib') return { kind: 'outside' };
  if (parts.length === 2) return parts[1] === 'index.ts' ? { kind: 'surface' } : { kind: 'nowhere', name: parts[1] };
  return ROOMS.includes(parts[1]) ? { kind: 'room', room: parts[1] } : { kind: 'nowhere', name: parts[1] };
}

const matches = (file, patterns) =>
  patterns.some((pattern) => (pattern.endsWith('/') ? file.startsWith(pattern) : file === pattern));

/**
 * Why `file` may not import `specifier`, or undefined when it may.
 *
 * @param {string} file importing file, relative to the repository
 * @param {string} specifier as written
 * @param {{ packages?: Record<string, string[]>, guarded?: Record<string, string[]> }} options `packages`: which files
 *   ('x/y.ts') or folders ('x/') may import a package; `guarded`: the same for single files of lib/.
 */
export function whyForbidden(file, specifier, options = {}) {
  const from = placeOf(file);
  if (from.kind === 'outside') return undefined;
  if (from.kind === 'nowhere') return `lib/${from.name} is in no room; the rooms are ${ROOMS.join(', ')}`;

  if (!specifier.startsWith('.')) {
    if (specifier.startsWith('node:')) return undefined;
    const name = specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
    const users = options.packages?.[name];
    if (users === undefined) return `the package '${name}' is not listed for lib/ in eslint.config.js`;
    const isTest = file.endsWith('.test.ts') && users.includes('*.test.ts');
    return isTest || matches(file, users) ? undefined : `only ${users.join(', ')} may import '${name}'`;
  }

  const target = path.posix.join(path.posix.dirname(file), specifier).replace(/\.js$/, '.ts');
  const to = placeOf(target);
  if (to.kind === 'outside') return `'${specifier}' leads out of lib/`;
  if (to.kind === 'nowhere') return `'${specifier}' leads to lib/${to.name}, which is in no room`;
  if (to.kind === 'surface') return 'nothing in lib/ imports the public surface, lib/index.ts';
  const users = options.guarded?.[target];
  if (users !== undefined && !matches(file, users)) return `only ${users.join(', ')} may import ${target}`;
  if (from.kind === 'room' && ROOMS.indexOf(to.room) > ROOMS.indexOf(from.room)) {
    return `${from.room} stands before ${to.room}: a room imports only itself and rooms before it`;
  }
  return undefined;
}

/** The rule for ESLint; its options are those of whyForbidden. */
export const roomsRule = {
  meta: {
    type: 'problem',
    docs: { description: 'a room of lib/ imports only itself and the rooms before it' },
    messages: { forbidden: '{{reason}}' },
    schema: [{ type: 'object' }],
  },
  create(context) {
    const file = path.relative(context.cwd, context.filename).split(path.sep).join('/');
    const options = context.options[0] ?? {};
    const check = (node) => {
      if (node?.type !== 'Literal' || typeof node.value !== 'string') return;
      const reason = whyForbidden(file, node.value, options);
      if (reason !== undefined) context.report({ node, messageId: 'forbidden', data: { reason } });
    };
    return {
      ImportDeclaration: (node) => check(node.source),
      ExportNamedDeclaration: (node) => check(node.source),
      ExportAllDeclaration: (node) => check(node.source),
      ImportExpression: (node) => check(node.source),
      TSImportType: (node) => check(node.source ?? node.argument?.literal),
      // require(...), or a function made by createRequire and called so, must not be a way round.
      "CallExpression[callee.name='require']": (node) => check(node.arguments[0]),
    };
  },
};
