/**
 * Runs a file of tests once more inside a network namespace of its own, where a test may make taps and give them
 * addresses: as root, or as an ordinary user in a user namespace, where both are allowed.
 */
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import path from 'node:path';
import { isPromised } from '../../base/testing-promises.js';

const VARIABLE = 'VIVARIUM_TEST_IN_NAMESPACE';

/** Whether this is such a run. */
export const isInNamespace = process.env[VARIABLE] !== undefined;

const namespaces = () => ['--net', ...(process.getuid!() === 0 ? [] : ['--user', '--map-root-user'])];

/** Why this user can't have a tap in a network namespace; undefined, too, where the run promises it. */
export function whyNoTap(): string | undefined {
  if (isPromised('taps')) return undefined;
  const made = spawnSync('unshare', [...namespaces(), 'ip', 'link', 'set', 'lo', 'up'], { encoding: 'utf8' });
  if (made.error) return `unshare: ${made.error.message}`;
  if (made.status !== 0) return `no network namespace of its own: ${made.stderr.trim()}`;
  try {
    accessSync('/dev/net/tun', constants.R_OK | constants.W_OK);
  } catch (error) {
    return (error as Error).message;
  }
  return undefined;
}

/**
 * What passt wants of a host before it starts: an interface with an address and a default route. Here one that leads
 * nowhere, so that tests of passt need nothing of the host's own network. Only in such a run.
 */
export function makeDefaultRoute(): void {
  for (const line of [
    'link set lo up',
    'tuntap add dev vvout mode tap',
    'addr add 192.0.2.1/24 dev vvout',
    'link set vvout up',
    'route add default via 192.0.2.2',
  ]) {
    execFileSync('ip', line.split(' '));
  }
}

/** How the tests of `file` went inside. @throws Error when they did not run. */
export async function runInNamespace(file: string): Promise<{ passed: number; others: readonly unknown[] }> {
  const root = path.resolve(import.meta.dirname, '../../..');
  const vitest = path.join(root, 'node_modules/vitest/vitest.mjs');
  const command = [...namespaces(), process.execPath, vitest, 'run', '--project', 'unit', '--reporter', 'json', file];
  const output = await new Promise<string>((resolve, reject) => {
    const env = { ...process.env, [VARIABLE]: '1' };
    execFile('unshare', command, { cwd: root, env, maxBuffer: 1 << 24 }, (error, stdout, stderr) => {
      if (stdout.includes('{')) resolve(stdout.slice(stdout.indexOf('{')));
      else reject(new Error(`${error?.message ?? ''} ${stderr}`));
    });
  });
  const { testResults } = JSON.parse(output) as {
    testResults: {
      message: string;
      assertionResults: { status: string; title: string; failureMessages: string[] }[];
    }[];
  };
  const results = testResults.flatMap(({ assertionResults }) => assertionResults);
  const broken = testResults.map(({ message }) => message).filter((message) => message !== '');
  return {
    passed: results.filter(({ status }) => status === 'passed').length,
    others: [...broken, ...results.filter(({ status }) => status !== 'passed')],
  };
}
