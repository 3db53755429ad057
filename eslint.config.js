/**
 * What the linter holds: typescript-eslint's strict type-checked rules on TypeScript, the core rules on scripts,
 * and the layer rule of lib/ (scripts/lint/rooms.mjs) with its exceptions. Formatting is prettier's business.
 */
import tseslint from 'typescript-eslint';
import { roomsRule } from './scripts/lint/rooms.mjs';

const nodeGlobals = Object.fromEntries(
  [
    'process',
    'console',
    'Buffer',
    'URL',
    'URLSearchParams',
    'setTimeout',
    'clearTimeout',
    'setInterval',
    'clearInterval',
    'setImmediate',
    'clearImmediate',
    'queueMicrotask',
    'structuredClone',
    'AbortController',
    'AbortSignal',
    'TextEncoder',
    'TextDecoder',
    'performance',
    'fetch',
    'WebAssembly',
    'Event',
    'EventTarget',
    'MessageChannel',
  ].map((name) => [name, 'readonly']),
);

export default tseslint.config(
  { ignores: ['dist/', 'build/', 'coverage/', 'node_modules/', 'test-output/', 'bench/results/'] },
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  {
    files: ['**/*.mjs', '**/*.js'],
    languageOptions: { ecmaVersion: 2023, sourceType: 'module', globals: nodeGlobals },
    rules: {
      'no-undef': 'error',
      'no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
      'prefer-const': 'error',
      eqeqeq: ['error', 'always'],
      'no-var': 'error',
      'no-fallthrough': 'error',
      'no-unreachable': 'error',
      'no-dupe-keys': 'error',
    },
  },
  {
    files: ['**/*.ts'],
    extends: [...tseslint.configs.strictTypeChecked],
    languageOptions: {
      parserOptions: {
        project: ['./tsconfig.json', './lib/dashboard/page/tsconfig.json'],
        tsconfigRootDir: import.meta.dirname,
      },
    },
    rules: {
      eqeqeq: ['error', 'always'],
      'no-restricted-syntax': [
        'error',
        { selector: 'ExportDefaultDeclaration', message: 'names are exported, so that a search finds them' },
      ],
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      // A device or a listener may do nothing on purpose, and a callback may hand on what a void function gives.
      '@typescript-eslint/no-empty-function': 'off',
      '@typescript-eslint/no-confusing-void-expression': 'off',
      // Texts here are ASCII where they are spread into bytes.
      '@typescript-eslint/no-misused-spread': ['error', { allow: ['string'] }],
      // Numbers, bigints and booleans read well in a template; objects do not.
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true, allowNullish: false },
      ],
      '@typescript-eslint/restrict-plus-operands': ['error', { allowNumberAndString: false }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      // Structures shared with C are read at constant indices; noUncheckedIndexedAccess already makes the rest explicit.
      '@typescript-eslint/no-non-null-assertion': 'off',
      // Checks of what JavaScript callers hand in look needless to the types. They are not.
      '@typescript-eslint/no-unnecessary-condition': 'off',
      '@typescript-eslint/no-unnecessary-type-assertion': 'error',
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': ['error', { checksVoidReturn: { arguments: false } }],
      '@typescript-eslint/unified-signatures': 'off',
      '@typescript-eslint/no-extraneous-class': 'off',
    },
  },
  {
    files: ['**/*.test.ts', 'test/**/*.ts'],
    rules: {
      // Tests hand in wrong types on purpose and look into what a function returned.
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-unsafe-call': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/unbound-method': 'off',
      '@typescript-eslint/restrict-template-expressions': 'off',
    },
  },
  {
    files: ['lib/**/*.ts'],
    plugins: { vivarium: { rules: { rooms: roomsRule } } },
    rules: {
      'vivarium/rooms': [
        'error',
        {
          packages: {
            // The loader of the .node file: one place that knows the addon.
            bindings: ['lib/kvm/binding.ts'],
            // The parser of command lines stays in the command.
            commander: ['lib/cli/'],
            // Kernels packed with zstd, for a Node without zstd of its own.
            fzstd: ['lib/boot/payload.ts'],
            // The control socket's server, and the schemas that check its requests and describe them.
            fastify: ['lib/control/server.ts', 'lib/control/routes/', '*.test.ts'],
            '@sinclair/typebox': ['lib/control/'],
            // Counters in the text format of Prometheus.
            'prom-client': ['lib/control/metrics.ts'],
            // The log of a process that holds a machine; an adapter for a program's own needs only its shape.
            pino: ['lib/cli/holder-log.ts', '*.test.ts'],
            // The dashboard's WebSockets, and what draws its page: types here, files to the browser.
            ws: ['lib/dashboard/server.ts', 'lib/dashboard/testing.ts'],
            uplot: ['lib/dashboard/page/vendor/'],
            '@xterm/xterm': ['lib/dashboard/page/vendor/'],
            '@xterm/addon-fit': ['lib/dashboard/page/vendor/'],
            // Schemas of saved state, of snapshot manifests and of what the dashboard's page sends.
            valibot: ['lib/'],
            vitest: ['*.test.ts'],
            // The child processes of this test run its TypeScript, which Node 20 does not.
            typescript: ['lib/images/cache.test.ts'],
            'fast-check': ['*.test.ts'],
          },
          guarded: {
            // The addon's classes are mechanism; what stands above sees the checked classes of lib/kvm and lib/memory.
            'lib/kvm/native.ts': ['lib/kvm/', 'lib/memory/'],
            'lib/kvm/native-pager.ts': ['lib/kvm/', 'lib/memory/'],
            'lib/kvm/binding.ts': ['lib/kvm/', 'lib/memory/'],
          },
        },
      ],
    },
  },
);
