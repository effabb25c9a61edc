import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { chooseEntry, entryPoints } from '../src/wgsl/declarations.ts';
import { expandTemplate } from '../src/wgsl/template.ts';
import { reflect } from '../src/wgsl/reflect.ts';
import { failsWith } from './harness.ts';

const expand = (text: string, constants: Record<string, number> = {}): string =>
  expandTemplate('k', text, constants);
const value = (expression: string, constants: Record<string, number> = {}): string =>
  expand(`\${${expression}}`, constants);

test('plain text stays as it is', () => {
  const text = '// a comment with # and $ and {}\nfn main() { let x = 1; }\n\n';
  assert.is(expand(text), text);
});

test('#if keeps its lines when the expression is not 0, else those of #else', () => {
  const text = 'a\n#if X\nb\n#else\nc\n#end\nd';
  assert.is(expand(text, { X: 2 }), 'a\nb\nd');
  assert.is(expand(text, { X: 0 }), 'a\nc\nd');
  assert.is(expand('#if X\nb\n#end', { X: 0 }), '');
});

test('#for repeats its lines from A to B - 1, and not at all when there are none', () => {
  assert.is(expand('#for i in 1..N\nv${i}\n#end', { N: 4 }), 'v1\nv2\nv3');
  assert.is(expand('x\n#for i in 3..3\nv${i}\n#end\ny'), 'x\ny');
  assert.is(expand('#for i in N-1..2*N\n${i}\n#end', { N: 2 }), '1\n2\n3');
});

test('loops and conditions nest, an inner loop sees the outer variable, and #else belongs to its own #if', () => {
  const text = '#for i in 0..2\n#for j in 0..i+1\n#if i == j\nd${i}\n#else\no${i}${j}\n#end\n#end\n#end';
  assert.is(expand(text), 'd0\no10\nd1');
});

test('directives may be indented and a skipped branch is not evaluated', () => {
  assert.is(expand('  #if A\n    #if MISSING\n    x\n    #end\n  #else\n  y\n  #end', { A: 0 }), '  y');
});

test('every operator has the precedence and the integer meaning that C gives it', () => {
  for (const [expression, want] of [
    ['1 + 2 * 3', 7],
    ['(1 + 2) * 3', 9],
    ['7 / 2', 3],
    ['-7 / 2', -3],
    ['7 % 4', 3],
    ['10 - 3 - 2', 5],
    ['24 / 4 / 2', 3],
    ['2 - -3', 5],
    ['1 < 2', 1],
    ['2 < 2', 0],
    ['2 <= 2', 1],
    ['3 > 2', 1],
    ['3 >= 4', 0],
    ['3 == 3', 1],
    ['3 != 3', 0],
    ['1 && 0', 0],
    ['2 && 3', 1],
    ['0 || 5', 1],
    ['0 || 0', 0],
    ['!0', 1],
    ['!7', 0],
    ['!(1 == 2) && 1', 1],
    ['1 || 0 && 0', 1],
    ['1 + 1 == 2 && 3 > 1 + 1', 1],
    ['1 < 2 == 1', 1],
  ] as const)
    assert.is(value(expression), String(want), expression);
  assert.is(value('TM / SG + i', { TM: 24, SG: 8, i: 2 }), '5');
});

test('several expressions on a line are each replaced', () => {
  assert.is(expand('let c${i} = a[${i * 4}u + ${i}u];', { i: 3 }), 'let c3 = a[12u + 3u];');
});

test('an error names kernel and line', async () => {
  for (const [text, message] of [
    ['a\n${MISSING}', /k:2.*MISSING/],
    ['#if X > MISSING\n#end', /k:1.*MISSING/],
    ['a\nb\n#if 1\nc', /k:3: "#if 1" has no #end/],
    ['#for i in 0..2\nx', /k:1.*no #end/],
    ['x\n#else', /k:2: #else without/],
    ['x\n\n#end', /k:3: #end without/],
    ['#for i = 0..2\n#end', /k:1: write "#for i in A\.\.B"/],
    ['${1 +}', /k:1/],
    ['${(1 + 2}', /k:1: missing "\)"/],
    ['${1 2}', /k:1: unexpected "2"/],
    ['${a ^ b}', /k:1: cannot read/],
    ['${1.5}', /k:1/],
  ] as const)
    await failsWith('kernel', message, () => expand(text, { X: 1, a: 1, b: 1 }));
});

const header = 'struct P { n: u32, shift: i32, eps: f32 }\n@group(0) @binding(0) var<uniform> p: P;\n';

test('a kernel says its bindings in order, with how it uses them, and its uniform fields', () => {
  const found = reflect(
    'k',
    `${header}@group(0) @binding(1) var<storage, read> x: array<vec4f>;\n@group(0) @binding(2)\n  ` +
      `var<storage, read_write> y: array<f32>;\n@group(0) @binding(3) var<storage> z: array<u32>;`,
  );
  assert.equal(found.bindings, [
    { name: 'p', binding: 0, type: 'uniform' },
    { name: 'x', binding: 1, type: 'read-only-storage' },
    { name: 'y', binding: 2, type: 'storage' },
    { name: 'z', binding: 3, type: 'read-only-storage' },
  ]);
  assert.equal(found.fields, [
    { name: 'n', type: 'u32' },
    { name: 'shift', type: 'i32' },
    { name: 'eps', type: 'f32' },
  ]);
});

test('bindings in comments do not count, and a kernel may have no uniform', () => {
  const found = reflect(
    'k',
    '// @group(0) @binding(7) var<storage, read> ghost: array<f32>;\n@group(0) @binding(0) ' +
      'var<storage, read> x: array<f32>; // @binding(9)',
  );
  assert.equal(found, { bindings: [{ name: 'x', binding: 0, type: 'read-only-storage' }], fields: [] });
});

test('more than 8 storage bindings are refused, 8 and a uniform are not', async () => {
  const storage = (n: number): string =>
    Array.from(
      { length: n },
      (_, i) => `@group(0) @binding(${i + 1}) var<storage, read> x${i}: array<f32>;`,
    ).join('\n');
  assert.is(reflect('k', header + storage(8)).bindings.length, 9);
  await failsWith('kernel', /k: 9 storage bindings/, () => reflect('k', header + storage(9)));
});

test('a uniform of anything but 4-byte scalars is refused by name', async () => {
  await failsWith('kernel', /k: uniform field "v: vec4f"/, () =>
    reflect('k', 'struct P { n: u32, v: vec4f }\n@group(0) @binding(0) var<uniform> p: P;'),
  );
  await failsWith('kernel', /k: no struct P/, () => reflect('k', '@group(0) @binding(0) var<uniform> p: P;'));
});

test('a binding is found however its attributes are written', () => {
  const text =
    '@binding( 1u ) @group(0) var<storage,read_write> y : array<f32>;\n@group(0) @binding(0) /* first ' +
    '*/ var<storage> x: array<f32>;';
  assert.equal(reflect('k', text).bindings, [
    { name: 'y', binding: 1, type: 'storage' },
    { name: 'x', binding: 0, type: 'read-only-storage' },
  ]);
});

test('what cannot be bound is refused by name, with what to write instead', async () => {
  const x = '@group(0) @binding(0) var<storage> x: array<f32>;\n';
  const more = (text: string) => () => reflect('k', x + text);
  await failsWith(
    'kernel',
    /"y" is in @group\(1\).*write @group\(0\) @binding\(3\) instead/,
    more('@group(1) @binding(3) var<storage> y: array<f32>;'),
  );
  await failsWith(
    'kernel',
    /"y" is in @group\(2\).*write @group\(0\) @binding\(1\) instead/,
    more('@group(2) @binding(0) var<storage> y: array<f32>;'),
  );
  await failsWith(
    'kernel',
    /"y" needs @group\(0\) and @binding\(N\)/,
    more('@group(0) @binding(N) var<storage> y: array<f32>;'),
  );
  await failsWith(
    'kernel',
    /"y" has @binding\(0\), as another/,
    more('@group(0) @binding(0) var<storage> y: array<f32>;'),
  );
  await failsWith(
    'kernel',
    /"t" \(texture_2d<f32>\) cannot be bound/,
    more('@group(0) @binding(1) var t: texture_2d<f32>;'),
  );
  const uniforms =
    'struct P { n: u32 }\n@group(0) @binding(1) var<uniform> p: P;\n@group(0) @binding(2) var<uniform> q: P;';
  await failsWith('kernel', /p and q are uniform; a kernel has one uniform struct/, more(uniforms));
});

const TWO = `@group(0) @binding(0) var<storage> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(1) var<storage, read_write> z: array<u32>;
fn shared_part() -> f32 { return x[0]; }
@compute @workgroup_size(64) fn first() { y[0] = shared_part(); }
// @compute @workgroup_size(1) fn ghost() {}
@workgroup_size(max(1, (2))) @compute fn second() { z[0] = 1u; }`;

test('entry points are found in any order of attributes, and each has the bindings that it uses', async () => {
  assert.equal(entryPoints(TWO), ['first', 'second']);
  assert.equal(
    reflect('k', TWO, 'first').bindings.map((b) => b.name),
    ['x', 'y'],
  );
  assert.equal(
    reflect('k', TWO, 'second').bindings.map((b) => b.name),
    ['z'],
  );
});

test('the entry point is the wanted one, else main, else the only one; otherwise all are listed', async () => {
  assert.is(chooseEntry('k', TWO, 'second'), 'second');
  assert.is(chooseEntry('k', TWO.replace('second', 'main')), 'main');
  assert.is(chooseEntry('k', '@compute @workgroup_size(8) fn scale() {}'), 'scale');
  await failsWith('kernel', /entry points first, second and no main: choose one with --entry NAME/, () =>
    chooseEntry('k', TWO),
  );
  await failsWith('kernel', /no entry point "third"; it has first, second/, () =>
    chooseEntry('k', TWO, 'third'),
  );
  await failsWith('kernel', /no entry point: write @compute/, () => chooseEntry('k', 'fn f() {}'));
});

test.run();
