/** The command line that starts a fenced process: the launcher's options from a plan, the environment that is left, and what starts unfenced. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { FENCE_VARIABLE, type FenceAsked } from '../base/fence.js';
import { runtimeFolder } from '../base/user-folders.js';
import { type FencePlan, type FenceWants, homesOf, packageFolderOf, planFence } from './fence-plan.js';

/** 'carries': the guest is in the embedded host; 'none': the user has said so. */
export type HolderFence = FenceWants | 'carries' | 'none';

export interface Launch {
  readonly program: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Why the process reaches what its user does, where that was not asked for. */
  readonly unfenced?: string | undefined;
}

const ROOT = new URL('../../', import.meta.url);
/** As for the addon: what was compiled here, else what the package brought along. */
const LAUNCHERS = ['build/Release/vivarium-fence', `prebuilds/${process.platform}-${process.arch}/vivarium-fence`];
/** All else, such as tokens of other services, is none of a machine's business. */
const KEPT_VARIABLES =
  /^(PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TZ|TERM|COLORTERM|NO_COLOR|TMPDIR|XDG_\w+|VIVARIUM_\w+|NODE_(OPTIONS|PATH|DEBUG|DEBUG_NATIVE|NO_WARNINGS|PENDING_DEPRECATION|ICU_DATA|COMPILE_CACHE|DISABLE_COMPILE_CACHE|V8_COVERAGE)|OPENSSL_CONF|LD_LIBRARY_PATH)$/;

/** The folder of this package, seen from lib/cli, dist/cli or dist/command alike. */
export const PACKAGE_FOLDER = fileURLToPath(ROOT).replace(/\/$/, '');

/** Undefined where it was not built. */
export function findLauncher(): string | undefined {
  return LAUNCHERS.map((place) => fileURLToPath(new URL(place, ROOT))).find((path) => existsSync(path));
}

/** The kernel's; 0 where it has none. */
export function landlockVersion(launcher: string): number {
  return Number(execFileSync(launcher, ['--abi'], { encoding: 'latin1' }));
}

/**
 * How `command` is started in that fence; as it is where there is no launcher.
 *
 * @throws VmmError ERR_FENCED when passt lies where the machine may write.
 */
export function launchOf(command: readonly string[], fence: HolderFence): Launch {
  const { env } = process;
  const launcher = fence === 'none' ? undefined : findLauncher();
  if (fence === 'none' || launcher === undefined) {
    const unfenced = fence === 'none' ? undefined : 'vivarium-fence is not built; npm run build does that';
    return { program: command[0]!, args: command.slice(1), env, unfenced };
  }
  if (fence === 'carries') return launchFenced(launcher, undefined, command, env);
  const places = {
    env,
    homes: homesOf(env),
    runtime: runtimeFolder,
    packageFolder: packageFolderOf(PACKAGE_FOLDER),
    node: command[0]!,
  };
  const launch = launchFenced(launcher, planFence(fence, places), command, env);
  if (launch.unfenced !== undefined || landlockVersion(launcher) > 0) return launch;
  return { ...launch, unfenced: 'this kernel has no Landlock, which fences paths' };
}

/** `plan` undefined: nothing but new privileges and core dumps is denied. */
export function launchFenced(
  launcher: string,
  plan: FencePlan | undefined,
  command: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Launch {
  const asked = plan?.asked ?? CARRIES;
  const keep = plan?.capabilities ?? ALL_CAPABILITIES;
  const options = [
    ...(asked.open === undefined ? [] : ['--no-paths']),
    ...(plan?.passt === undefined ? [] : ['--passt', plan.passt]),
    ...keep.flatMap((number) => ['--keep', String(number)]),
    ...(plan?.run ?? []).flatMap((path) => ['--run', path]),
    ...(plan?.read ?? []).flatMap((path) => ['--read', path]),
    ...(plan?.devices ?? []).flatMap((path) => ['--device', path]),
    ...(plan?.asked.write ?? []).flatMap((path) => ['--write', path]),
  ];
  const kept =
    plan === undefined ? env : Object.fromEntries(Object.entries(env).filter(([name]) => KEPT_VARIABLES.test(name)));
  return {
    program: launcher,
    args: [...options, '--', ...command],
    env: { ...kept, [FENCE_VARIABLE]: JSON.stringify(asked) },
    unfenced: asked.open,
  };
}

/** The process outside of a guest that runs in the embedded host. */
const CARRIES: FenceAsked = {
  open: 'the guest is in the embedded host, to which this process only carries',
  carries: true,
  write: [],
  networks: { tap: true, switch: true, passt: true },
};
const ALL_CAPABILITIES = Array.from({ length: 64 }, (_, number) => number);
