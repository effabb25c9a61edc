import { create } from 'webgpu';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { kernelFileNotes } from '../src/measure/kernel-file.ts';
import { formatGradcheck } from '../src/cli/gradcheck.ts';
import { defineElementwise } from '../src/custom/elementwise.ts';
import { gradcheck, type GradcheckSubject } from '../src/custom/gradcheck.ts';
import { elementwiseSubject } from '../src/custom/subjects.ts';
import { openGpu, type Gpu } from '../src/gpu/device.ts';
import { compileKernel } from '../src/gpu/pipelines.ts';
import { compilerOf } from '../src/wgsl/compiler.ts';
import { portability } from '../src/wgsl/portability.ts';
import { elements } from '../src/graph/shape.ts';
import { defineOp } from '../src/launch/op.ts';
import { kernel } from '../src/launch/dispatch.ts';
import { openTestGpu } from './gpu.ts';
import { failsWith } from './harness.ts';

/** A kernel with declarations and the statements of `main`; `first` stands before everything. */
const text = (declarations: string, body: string, first = ''): string => `${first}
@group(0) @binding(0) var<storage, read_write> y: array<f32>;
var<workgroup> shared_row: array<f32, 64>;
var<workgroup> count: u32;
${declarations}
@compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32, @builtin(workgroup_id) w: vec3u) {
${body}
}`;

const POINTEE = 'fn half(p: ptr<function, f32>) -> f32 { return 0.5 * *p; }';
/** What naga refuses and Tint accepts, the word that stands at the place, and a part of the message. */
const NAGA_REFUSES: readonly (readonly [wgsl: string, at: string, message: RegExp])[] = [
  [
    text('fn first(p: ptr<storage, array<f32>, read_write>) -> f32 { return (*p)[0]; }', 'y[i] = first(&y);'),
    'ptr<storage',
    /pointer to storage memory as a parameter/,
  ],
  [
    text(
      'fn first(p: ptr<workgroup, array<f32, 64>>) -> f32 { return (*p)[0]; }',
      'y[i] = first(&shared_row);',
    ),
    'ptr<workgroup',
    /pointer to workgroup memory as a parameter/,
  ],
  [
    text(POINTEE, 'var a = array(1.0, 2.0); y[i] = half(&a[i % 2u]);'),
    '&a[i',
    /pointer to an element or a member as an argument.* crashes/,
  ],
  [
    text(`struct S { a: f32, b: f32 }\n${POINTEE}`, 'var s = S(1.0, 2.0); y[i] = half(&s.b);'),
    '&s.b',
    /crashes/,
  ],
  [text(POINTEE, 'var a = array(1.0, 2.0); let p = &a[1]; y[i] = half(p);'), 'p);', /crashes/],
  [
    text('', 'var v = vec4f(0.0); v.xy = vec2f(1.0); y[i] = v.x;'),
    'xy = ',
    /an assignment to a swizzle.* each component/,
  ],
  [text('', 'var v = array<vec4f, 2>(); v[1].bgr *= vec3f(1.0); y[i] = v[1].x;'), 'bgr *=', /swizzle/],
  [text('', 'y[i] = f32(bitcast<vec2<f16>>(i).x);', 'enable f16;'), 'bitcast', /vec2<f16>.* unpack2x16float/],
  [text('', 'y[i] = f32(bitcast<u32>(vec2h(1.0h, f16(i))));', 'enable f16;'), 'bitcast', /vec2<f16>/],
  [text('var<immediate> n: u32;', 'y[i] = f32(n);'), 'var<immediate>', /field of the uniform struct/],
  [
    text('', 'y[i] = 1.0;', 'requires pointer_composite_access, linear_indexing;'),
    'linear_indexing',
    /"requires linear_indexing"/,
  ],
  [
    text('', 'y[i] = subgroupAdd(1.0);', 'enable f16, subgroups;'),
    'subgroups',
    /"enable subgroups".* SG is 0/,
  ],
];
/** Barriers that Tint refuses, and naga accepts. */
const TINT_REFUSES: readonly string[] = [
  'if (i < 3u) { workgroupBarrier(); }',
  'if (w.x < 3u) { y[i] = 0.0; } else if (i < 3u) { storageBarrier(); }',
  'if (y[0] > 1.0) { workgroupBarrier(); }',
  'let lane = i % 8u; let first = lane == 0u; if (!first) { return; } workgroupBarrier();',
  'for (var j = i; j < 100u; j += 64u) { workgroupBarrier(); }',
  'for (var j = 0u; j < 4u; j++) { workgroupBarrier(); if (i + j > 70u) { break; } }',
  'loop { workgroupBarrier(); continuing { break if shared_row[i] > 0.0; } }',
  'switch (i) { case 0u: { workgroupBarrier(); } default: {} }',
  'if (i < 3u) { meet(); }',
  'if (twice(1u, i) < 3u) { workgroupBarrier(); }',
];
/** What both accept, however near to the above. */
const BOTH_ACCEPT: readonly string[] = [
  text(
    'fn sum(p: ptr<function, array<f32, 4>>) -> f32 { return p[0] + p[1]; }',
    'var a: array<f32, 4>; a[1] = 2.0; y[i] = sum(&a);',
  ),
  text(
    'var<workgroup> counts: array<atomic<u32>, 4>;',
    'atomicAdd(&counts[i % 4u], 1u); let p = &y[i]; *p = f32(atomicLoad(&counts[0]));',
  ),
  text(
    'struct S { xy: f32, n: u32 }',
    'var s = S(1.0, 2u); s.xy = 3.0; var v = vec4f(s.xy); v.x = 1.0; v[1] += 2.0; if (all(v.xy == ' +
      'v.zw)) { y[i] = v.x; }',
  ),
  text(
    '',
    'let v = unpack2x16float(bitcast<u32>(y[i])); y[i] = v.x; // bitcast<vec2<f16>>(i), v.xy = v',
    'enable f16;\nrequires packed_4x8_integer_dot_product;',
  ),
  text(
    '',
    'if (w.x < 3u) { workgroupBarrier(); }\nfor (var j = 0u; j < 4u; j++) { if (i < j) { continue; } ' +
      'shared_row[i] = 1.0; }\nworkgroupBarrier(); y[i] = shared_row[0];',
  ),
  text(
    '',
    'if (i == 0u) { count = 3u; } let n = workgroupUniformLoad(&count); for (var j = 0u; j < n; j++) { ' +
      'workgroupBarrier(); } y[i] = 1.0;',
  ),
  text(
    '',
    'for (var s = 32u; s > 0u; s = s / 2u) { if (i < s) { shared_row[i] += shared_row[i + s]; } ' +
      'workgroupBarrier(); } var n = i; n = 0u; if (n < arrayLength(&y)) { storageBarrier(); }',
  ),
  text(
    'fn mine(w: vec3u, i: u32) -> u32 { return w.x; }',
    'let row = mine(w, i); if (row > 3u) { return; } workgroupBarrier(); y[i] = 1.0;',
  ),
  text('', 'if (w.x == 0u) { if (i < 3u) { return; } y[i] = 1.0; } else { workgroupBarrier(); }\n'),
  text(
    'fn pick(n: u32) -> f32 { if (n < 3u) { return 1.0; } return 2.0; }',
    'shared_row[i] = pick(i); workgroupBarrier(); switch (w.x) { case 0u: { if (i < 3u) { break; } ' +
      'y[i] = 1.0; } default: { workgroupBarrier(); } }',
  ),
];
const meeting = (body: string): string =>
  text('fn meet() { workgroupBarrier(); }\nfn twice(n: u32, by: u32) -> u32 { return 2u * by; }', body);

/** The compiler of Dawn, without a driver. */
const dawn = create(['backend=null']);
const open = async (runtime: string): Promise<Gpu> => {
  const gpu = await openGpu({
    device: await (await dawn.requestAdapter())!.requestDevice({
      requiredFeatures: ['shader-f16', 'subgroups'] as GPUFeatureName[],
    }),
  });
  return { ...gpu, profile: { ...gpu.profile, runtime } };
};
const compileText = (gpu: Gpu, source: string) => compileKernel(gpu, { name: 'probe', source });

test('what naga refuses is found at its place, with what to write instead; Tint does accept it', async () => {
  const gpu = await open('Dawn');
  for (const [wgsl, at, message] of NAGA_REFUSES) {
    const notes = portability(wgsl);
    assert.is(notes.length, 1, `${at}: ${JSON.stringify(notes)}`);
    const { line, column, refuses } = notes[0]!;
    assert.is(refuses, 'naga');
    const found = wgsl.split('\n')[line - 1]!.slice(column - 1);
    assert.ok(found.startsWith(at), `${line}:${column} is not at ${at}`);
    assert.match(notes[0]!.message, message);
    assert.match(
      notes[0]!.message,
      /^Tint \(Chromium, Dawn\) accepts .*; naga \(Firefox, Deno\) .*\. Instead, /,
    );
    const module = gpu.device.createShaderModule({ code: wgsl });
    assert.equal(
      (await module.getCompilationInfo()).messages
        .filter(({ type }) => type === 'error')
        .map((m) => m.message),
      [],
      at,
    );
  }
});

test(
  'barriers that not every invocation reaches are found; Tint does refuse them, says who it is, and the ' +
    'message that naga would accept them',
  async () => {
    const gpu = await open('Dawn (webgpu 1.2.3)');
    for (const body of TINT_REFUSES) {
      const notes = portability(meeting(body));
      assert.equal(
        notes.map(({ refuses }) => refuses),
        ['Tint'],
        body,
      );
      assert.match(notes[0]!.message, /^naga \(Firefox, Deno\) accepts a barrier .*, wrongly; Tint /);
      await failsWith(
        'kernel',
        [
          /kernel probe does not compile; Tint \(Dawn \(webgpu 1\.2\.3\)\) says/,
          /must only be called from uniform control flow/,
          /probe:\d+:\d+ naga \(Firefox, Deno\) accepts a barrier/,
        ],
        () => compileText(gpu, meeting(body)),
      );
    }
  },
);

test('what both compilers take is left alone, and Tint takes it', async () => {
  const gpu = await open('Dawn');
  for (const wgsl of BOTH_ACCEPT) {
    assert.equal(portability(wgsl), [], wgsl);
    await compileText(gpu, wgsl);
  }
});

test(
  'under naga, its own refusals say that Tint accepts the text, and what would end the process is not ' +
    'given to it',
  async () => {
    const gpu = await open('Deno');
    const given: string[] = [];
    const createModule = gpu.device.createShaderModule.bind(gpu.device);
    gpu.device.createShaderModule = (descriptor) => {
      given.push(descriptor.code);
      const messages = [
        { type: 'error', lineNum: 7, linePos: 21, message: 'invalid left-hand side of assignment' },
      ];
      const module = createModule(descriptor);
      return Object.defineProperty(module, 'getCompilationInfo', { value: async () => ({ messages }) });
    };
    await failsWith(
      'kernel',
      [
        /does not compile; naga \(Deno\) says/,
        /probe:7:21 invalid left-hand side/,
        /probe:7:23 Tint \(Chromium, Dawn\) accepts an assignment to a swizzle; naga.*\n {4}var v = .*\n {26}\^/,
      ],
      () => compileText(gpu, NAGA_REFUSES[5]![0]),
    );
    assert.is(given.length, 1);
    await failsWith('kernel', [/was not given to naga \(Deno\)/, /crashes on it/], () =>
      compileText(gpu, NAGA_REFUSES[2]![0]),
    );
    assert.is(given.length, 1, 'the compiler never saw it');
  },
);

test('who compiles is told by the runtime, and is not guessed', () => {
  assert.equal(['Dawn (webgpu 0.6.2), embedded SwiftShader', 'Deno', "the caller's device"].map(compilerOf), [
    'Tint',
    'naga',
    null,
  ]);
});

const gpu = await openTestGpu();

test(
  'the gradient check notes what another compiler refuses, in the lines of its author, and passes all ' +
    'the same',
  async () => {
    const twice = defineElementwise({
      name: 'twice',
      inputs: ['x'],
      forward: 'var v = vec2f(x);\nv.xy += vec2f(x); return v.y;',
      backward: { x: '2.0' },
      reference: ({ x }) => 2 * x,
    });
    const result = await gradcheck(gpu, elementwiseSubject(twice), { families: ['gpu'] });
    assert.ok(result.passed);
    assert.is(result.notes.length, 1, result.notes.join('\n'));
    assert.match(
      result.notes[0]!,
      /^ {2}twice\.forward:2:3 Tint .* accepts an assignment to a swizzle; naga .*\n {4}v\.xy \+= vec2f\(x\); return v\.y;\n {6}\^$/,
    );
    assert.ok(formatGradcheck(result).endsWith(result.notes[0]!));
  },
);

/** A copy that asks the adapter what it may use. */
const copy = (plain: boolean): GradcheckSubject => {
  const source = kernel(
    'copy_broadcast',
    `#if WIDE
enable subgroups;
#end
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(1) fn main(@builtin(workgroup_id) w: vec3u) { y[w.x] = x[w.x]; }`,
  );
  const op = defineOp({
    name: 'copy_broadcast',
    shape: ([x]) => [{ shape: x!.shape, dtype: 'f32' }],
    backward: null,
    saves: { inputs: [], outputs: [] },
    cost: () => ({ flops: 0, bytes: 0 }),
    forward: (c) => [
      {
        kernel: source,
        constants: { WIDE: Number(!plain || c.adapter.features.has('subgroups')) },
        grid: [elements(c.input(0).shape), 1, 1],
        bind: { x: c.input(0), y: c.outputs[0]! },
      },
    ],
  });
  return {
    name: 'copy',
    build: ({ x }) => x!.graph.apply(op, [x!], {})[0]!,
    reference: ({ x }) => x!,
    cases: [{ name: 'few', inputs: { x: { shape: [5], gradient: false } } }],
  };
};

test('subgroups are noted where there is no plain variant, and only there', async () => {
  assert.equal((await gradcheck(gpu, copy(true))).notes, []);
  assert.match(
    (await gradcheck(gpu, copy(false))).notes.join('\n'),
    /^ {2}copy_broadcast:1:8 .*"enable subgroups".*where adapter\.features lacks 'subgroups'/,
  );
});

test('a .wgsl file is read as it would be without subgroups', () => {
  const file = (guard: string): string =>
    `${guard}enable subgroups;\n#end\n// bench: constant WG=64\n${text('', 'y[i] = f32(${WG});')}`;
  assert.equal(kernelFileNotes('mine.wgsl', file('#if SG\n')), []);
  assert.match(kernelFileNotes('mine.wgsl', file('#if WG\n')).join(), /mine\.wgsl:1:8 .*"enable subgroups"/);
});

test.run();
