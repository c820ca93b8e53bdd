/** Test set-up: which backend runs, and the check that every test file leaves memory as it found it. */

import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import type { Backend } from '../../src/runtime/backend.ts';
import { createReferenceBackend } from '../../src/runtime/registry.ts';
import { currentBackend, liveBytes, setBackend } from '../../src/tensor/backend.ts';

/** Asserts after the file's tests that live bytes are what they were before them. */
export function checkLiveBytes(): void {
  let start = 0;
  before(() => {
    start = liveBytes();
  });
  after(() => {
    assert.equal(liveBytes(), start, 'live bytes at the end of the file');
  });
}

/** Runs `body` with the float64 reference backend current. */
export function onReference<T>(body: (backend: Backend) => T): T {
  const present = currentBackend();
  const reference = createReferenceBackend();
  setBackend(reference);
  try {
    return body(reference);
  } finally {
    setBackend(present);
    reference.dispose();
  }
}
