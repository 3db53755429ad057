/**
 * Every fenced block of every document is held to something: TypeScript compiles against the library's own types, each line of shell is a
 * command with options and arguments that its parser takes, and who runs it, or why nobody does, stands in test/lib/document-runs.ts. A
 * block that no rule here knows fails, so that nobody adds one which nobody looks at.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';
import { openApi } from '../../lib/control/openapi.js';
import { ROUTES } from '../../lib/control/routes.js';
import { grammarComplaint } from '../lib/command-grammar.js';
import { blocksOf, type DocumentBlock, documents, ROOT } from '../lib/document-blocks.js';
import { NOT_RUN, RUN_ON_KVM, RUN_ON_LINUX } from '../lib/document-runs.js';
import { simpleCommands } from '../lib/shell-lines.js';

const manifest = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')) as { scripts: object };
const blocks = documents().flatMap((file) => blocksOf(file));

/** What each language is held to: what is wrong with a block, nothing for a good one. '' is a drawing, which says nothing to run. */
const RULES: Readonly<Record<string, (block: DocumentBlock) => Promise<string[]> | string[]>> = {
  ts: compiled,
  sh: (block) => commandsTaken(simpleCommands(block.text)),
  yaml: readByItsProgram,
};
const programs = blocks.filter(({ language }) => language !== '');

describe.each(programs.map((block) => [block.name, block] as const))('%s', (_name, block) => {
  it(`is ${block.language} that holds`, { timeout: 120_000 }, async () => {
    const rule = RULES[block.language];
    expect(rule, `line ${block.line}: no rule for a block of '${block.language}'`).toBeDefined();
    expect(await rule!(block), `line ${block.line}`).toEqual([]);
  });
});

describe('who runs a block', () => {
  const known = [...RUN_ON_KVM, ...RUN_ON_LINUX, ...Object.keys(NOT_RUN)];

  it('is written down for each, or why nobody does, and for none that is not there', () => {
    expect([...known].sort()).toEqual(programs.map(({ name }) => name).sort());
  });

  it('is one test', () => {
    expect(new Set(known).size).toBe(known.length);
  });
});

/** All blocks of TypeScript as modules that import the library by its name, in one program: the library is read once. */
const moduleOf = ({ file, line }: DocumentBlock): string => path.join(ROOT, `${file.replaceAll('/', '_')}.${line}.ts`);
const modules = new Map(
  programs
    .filter(({ language }) => language === 'ts')
    .map((block) => [moduleOf(block), block.text.includes('export ') ? block.text : `${block.text}\nexport {};\n`]),
);

let made: ts.Program | undefined;
function program(): ts.Program {
  if (made !== undefined) return made;
  const config = ts.readConfigFile(path.join(ROOT, 'tsconfig.json'), (file) => readFileSync(file, 'utf8'));
  const { options } = ts.parseJsonConfigFileContent(config.config, ts.sys, ROOT);
  options.paths = { vivarium: [path.join(ROOT, 'lib/index.ts')] };
  options.noEmit = true;
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists, readFile } = host;
  host.getSourceFile = (file, ...rest) => {
    const text = modules.get(file);
    return text === undefined
      ? getSourceFile.call(host, file, ...rest)
      : ts.createSourceFile(file, text, ts.ScriptTarget.ES2022);
  };
  host.fileExists = (file) => modules.has(file) || fileExists.call(host, file);
  host.readFile = (file) => modules.get(file) ?? readFile.call(host, file);
  return (made = ts.createProgram([...modules.keys()], options, host));
}

/** What the compiler has to say of a block; the library itself is checked by `npm run types`. */
function compiled(block: DocumentBlock): string[] {
  const source = program().getSourceFile(moduleOf(block))!;
  return [...program().getSyntacticDiagnostics(source), ...program().getSemanticDiagnostics(source)].map(
    ({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'),
  );
}

/** Programs of the shell's that documents use beside ours, which need no check of their options. */
const ORDINARY = ['mkdir', 'tar'];

async function commandsTaken(commands: readonly (readonly string[])[]): Promise<string[]> {
  const complaints = await Promise.all(commands.map((words) => complaintOf(words)));
  return complaints.filter((complaint) => complaint !== undefined);
}

async function complaintOf([name = '', ...words]: readonly string[]): Promise<string | undefined> {
  const line = [name, ...words].join(' ');
  if (name === 'npx' && words[0] === 'vivarium') return complaintOf(words);
  if (name === 'vivarium') {
    const complaint = await grammarComplaint(words);
    return complaint === undefined ? undefined : `${line}: ${complaint}`;
  }
  if (name === 'npm') return npmComplaint(words);
  if (name === 'curl') return requestComplaint(words);
  return ORDINARY.includes(name) ? undefined : `${line}: no rule for '${name}'`;
}

/** `npm ci`, or a script that package.json has. */
function npmComplaint([verb = '', script = verb]: readonly string[]): string | undefined {
  if (verb === 'ci') return undefined;
  return (verb === 'run' ? script : verb) in manifest.scripts ? undefined : `npm ${verb} ${script}: no such script`;
}

/** A request to a control socket: one that the OpenAPI document has, or for that itself. */
function requestComplaint([option, socket = '', url = '', ...more]: readonly string[]): string | undefined {
  const line = `curl ${[option, socket, url, ...more].join(' ')}`;
  if (option !== '--unix-socket' || more.length > 0) return `${line}: only curl --unix-socket SOCKET URL is known here`;
  if (!/^\$XDG_RUNTIME_DIR\/vivarium\/machines\/[\w-]+\/sock$/.test(socket)) return `${line}: no machine's socket`;
  const { pathname } = new URL(url);
  const paths = openApi(ROUTES, '0')['paths'] as Record<string, { get?: object }>;
  return pathname === '/v1/openapi.json' || paths[pathname]?.get ? undefined : `${line}: no GET ${pathname}`;
}

/** The `run:` lines of a workflow are commands; a scrape configuration is what its test serves (test/kvm/documents.test.ts). */
function readByItsProgram({ text }: DocumentBlock): Promise<string[]> | string[] {
  if (/^scrape_configs:$/m.test(text)) return [];
  const lines = [...text.matchAll(/^ *- run: (.*)$/gm)].map((match) => match[1]!);
  if (lines.length === 0) return ['neither a workflow with lines to run nor a scrape configuration'];
  const commands = lines.flatMap((line) => simpleCommands(line.replaceAll(/\$\{\{ [\w.]+ \}\}/g, 'VALUE')));
  return commandsTaken(commands);
}

describe('the check of lines of shell', () => {
  it('reads words, quotes, comments, pipes and redirections', () => {
    expect(simpleCommands(`a 'b c' "d $E"  # f\n\n g | h -- 'i && j >&2' > k 2>&1 && l;m # n`)).toEqual([
      ['a', 'b c', 'd $E'],
      ['g'],
      ['h', '--', 'i && j >&2'],
      ['l'],
      ['m'],
    ]);
  });

  it.each(['a $(b)', 'a `b`', 'a < b', 'a & b', "a 'b", 'for a in b; do (c); done'])('refuses %s', (line) => {
    expect(() => simpleCommands(line)).toThrow(/more shell|in the background|does not end/);
  });

  it.each([
    ['vivarium run --dsik a.img', /unknown option '--dsik'.*did you mean '--disk'/],
    ['vivarium run --pit sometimes', /--pit: 'sometimes' is none of/],
    ['vivarium run --nic wire:a', /--nic wire:a: 'wire' is none of/],
    ['vivarium snapshots merge a', /unknown command 'merge'/],
    ['vivarium snapshot box a --live --paused', /one of --live, --paused/],
    ['vivarium cp a b', /neither 'a' nor 'b' is in a machine/],
    ['vivarium exec box', /a COMMAND is wanted/],
    ['npm run nothing', /no such script/],
    ['npm nothing', /no such script/],
    ['make all', /no rule for 'make'/],
    [
      'curl --unix-socket "$XDG_RUNTIME_DIR/vivarium/machines/box/sock" http://box/v1/machines',
      /no GET \/v1\/machines/,
    ],
  ])('finds what is wrong with %s', async (line, complaint) => {
    expect(await commandsTaken(simpleCommands(line))).toEqual([expect.stringMatching(complaint)]);
  });

  it('takes apart what is not closed', () => {
    expect(() => blocksOf('a.md', 'text\n```ts\nlet a;\n')).toThrow('a.md:2: the block that begins here does not end');
  });
});
