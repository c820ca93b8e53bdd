/**
 * Scopes decide how long handles live: everything made inside is disposed at the end, but for what the
 * body returns, which moves to the enclosing scope. Tensors made outside every scope live until they
 * are disposed. Scopes are strictly nested and belong to one synchronous call, or, with asyncScope, to
 * one asynchronous one at a time.
 */

import { InternalError } from '../core/errors.ts';

/** What a scope owns. Declared here, implemented by Tensor, so that the two do not import each other. */
export interface ScopeMember {
  dispose(): void;
}

export class Scope {
  readonly members = new Set<ScopeMember>();
  readonly parent: Scope | undefined;
  constructor(parent: Scope | undefined) {
    this.parent = parent;
  }
}

let current: Scope | undefined;
const owners = new WeakMap<ScopeMember, Scope>();

export function currentScope(): Scope | undefined {
  return current;
}

export function register(member: ScopeMember): void {
  if (!current) return;
  current.members.add(member);
  owners.set(member, current);
}

export function unregister(member: ScopeMember): void {
  const owner = owners.get(member);
  if (!owner) return;
  owner.members.delete(member);
  owners.delete(member);
}

export function openScope(): Scope {
  current = new Scope(current);
  return current;
}

/** Ends `scope`: members in `kept` move to its parent, the others are disposed. */
export function closeScope(scope: Scope, kept: Iterable<ScopeMember>): void {
  if (current !== scope) {
    throw new InternalError('a scope was closed while an inner one was still open');
  }
  current = scope.parent;
  for (const member of kept) {
    if (owners.get(member) !== scope) continue;
    scope.members.delete(member);
    owners.delete(member);
    register(member);
  }
  for (const member of scope.members) owners.delete(member);
  const doomed = [...scope.members].reverse();
  scope.members.clear();
  for (const member of doomed) member.dispose();
}
