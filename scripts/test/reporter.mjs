/**
 * A vitest reporter that counts: passed, failed and skipped tests, each skip with its reason, written as JSON to the file
 * that VIVARIUM_TEST_COUNTS names. What is lost (a file that does not load, an unhandled error, a test whose worker died)
 * counts as failed. The text for people comes from vitest's own reporter beside it.
 */
import { writeFileSync } from 'node:fs';
import process from 'node:process';

export default class CountReporter {
  #running = new Set();
  #soFar = empty();

  onTestCaseReady(test) {
    this.#running.add(nameOf(test));
    this.#save({ ...this.#soFar, running: [...this.#running] });
  }

  onTestCaseResult(test) {
    this.#running.delete(nameOf(test));
    add(this.#soFar, test);
  }

  onTestRunEnd(modules, unhandledErrors) {
    const counts = empty();
    for (const module of modules) {
      for (const error of module.errors()) fail(counts, `${module.relativeModuleId}: ${error.message}`);
      for (const suite of module.children.allSuites()) {
        for (const error of suite.errors()) fail(counts, `${nameOf(suite)}: ${error.message}`);
      }
      for (const test of module.children.allTests()) add(counts, test);
    }
    for (const error of unhandledErrors) fail(counts, `unhandled: ${error.message}`);
    this.#save(counts);
  }

  /** While tests run, the file says what is known so far and which tests run, for the case that this run is ended. */
  #save(counts) {
    if (process.env.VIVARIUM_TEST_COUNTS) writeFileSync(process.env.VIVARIUM_TEST_COUNTS, JSON.stringify(counts));
  }
}

function empty() {
  return { passed: 0, failed: 0, skipped: 0, failures: [], skips: [] };
}

function add(counts, test) {
  const result = test.result();
  if (result.state === 'passed') {
    counts.passed++;
  } else if (result.state === 'skipped') {
    counts.skipped++;
    counts.skips.push({ name: nameOf(test), reason: result.note ?? 'no reason given' });
  } else {
    fail(counts, result.state === 'pending' ? `${nameOf(test)} (never ended)` : nameOf(test));
  }
}

function fail(counts, text) {
  counts.failed++;
  counts.failures.push(text);
}

function nameOf(entity) {
  return `${entity.module.relativeModuleId}: ${entity.fullName}`;
}
