import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkDependencies, checkPage, fencesOf } from '../../scripts/check-docs.ts';
import { conformancePage } from '../../scripts/conformance-page.ts';
import { checkGenerated } from '../../scripts/generate-docs.ts';
import { inTree } from './tree.ts';

test('broken links, anchors and script names in pages are reported', () => {
  const page = [
    '# One title',
    '[ok](docs/b.md#second-part) [same](#one-title) [web](https://example.org) `[code](x.md)`',
    '[gone](docs/c.md) [no heading](docs/b.md#third)',
    'Run `npm run known` or `npm run unknown`.',
  ].join('\n');
  const files = { 'a.md': page, 'docs/b.md': '# B\n\n## Second part\n' };
  const problems = inTree(files, (root) => checkPage(root, 'a.md', new Set(['known'])));
  assert.deepEqual(problems, [
    'a.md:3: link to docs/c.md, which does not exist',
    'a.md:3: link to docs/b.md#third: no such heading',
    'a.md:4: npm run unknown: package.json has no such script',
  ]);
});

test('a checked fence keeps its line numbers', () => {
  const fences = fencesOf('# T\n\n```ts\nconst a = 1;\n```\n\n```typescript\nnot checked\n```\n');
  assert.equal(fences.length, 1);
  assert.equal(fences[0]?.split('\n')[3], 'const a = 1;');
});

test('a dependency without a row and a row without a dependency are reported', () => {
  const page = '| package | why |\n|---|---|\n| `kept` (optional) | x |\n| `gone` | x |\n';
  const manifest = { optionalDependencies: { kept: '1' }, devDependencies: { added: '1' } };
  assert.deepEqual(checkDependencies(manifest, page), [
    'docs/decisions/dependencies.md: added has no row',
    'docs/decisions/dependencies.md: gone is not declared',
  ]);
});

test('generated pages that are missing or stale are reported', () => {
  const page = (file: string, text: string) => ({ file, text: () => text });
  const pages = [page('a.md', 'now'), page('b.md', 'now'), page('c.md', 'now')];
  const problems = inTree({ 'a.md': 'now', 'b.md': 'before' }, (root) =>
    checkGenerated(root, pages),
  );
  assert.deepEqual(
    problems.map((problem) => problem.split(':')[0]),
    ['b.md', 'c.md'],
  );
});

test('the page of conformance says what becomes of each case', () => {
  const text = conformancePage([
    {
      number: 1,
      torch: 'test_a',
      claim: 'a | b',
      eager: { kind: 'holds', check: () => {} },
      compiled: { kind: 'absent', why: 'The other half.' },
    },
    {
      number: 2,
      torch: 'test_b',
      claim: '',
      eager: { kind: 'absent', why: 'No.' },
      compiled: { kind: 'absent', why: 'No.' },
    },
  ]);
  assert.match(text, /^\| eager \| 1 \| 1 \|$/m);
  assert.match(text, /^\| 1 \| `test_a` \| a \\\| b \| holds \| not here: The other half\. \|$/m);
  assert.match(text, /^\| 2 \| `test_b` \| No\. \| - \| - \|$/m);
});
