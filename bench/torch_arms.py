"""PyTorch at the workloads of bench/workloads/contract.ts, driven by bench/peers/torch.ts.

    python3 torch_arms.py DEVICE THREADS PRECISION      DEVICE cpu or cuda; PRECISION f32, tf32, or bf16 or f16 (autocast; a forward
    matrix product has operands that lie in that type)

Speaks JSON, a line each way: the first line out says what is here ({torch, device} or {missing}); then every request on stdin has one reply.
Tensors travel in files: a request names the file, and shape, dtype and byte offset of each tensor in it. Layouts are converted when an arm is made
and when its outputs are read, so that PyTorch computes in its own; what is timed is the computation alone, with the device's queue drained at both ends.
"""
import ctypes
import json
import os
import resource
import sys
import time

DEVICE, THREADS, PRECISION = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def say(reply):
    print(json.dumps(reply), flush=True)


try:
    import torch
    import torch.nn.functional as F
except ImportError:
    say({'missing': f'{os.path.basename(sys.executable)} has no torch'})
    sys.exit(0)


def synchronise():
    if DEVICE == 'cuda':
        torch.cuda.synchronize()


HALF = {'bf16': torch.bfloat16, 'f16': torch.float16}


def autocast():
    return torch.autocast('cuda' if DEVICE == 'cuda' else 'cpu', dtype=HALF.get(PRECISION, torch.bfloat16), enabled=PRECISION in HALF)


def dense_gradient(y):
    """Makes the gradient that reaches y contiguous: PyTorch up to 2.1 computes the gradient of GELU on CPUs from a transposed one wrongly
    (pytorch/pytorch issues 107876 and 112006)."""
    if y.requires_grad:
        y.register_hook(lambda g: g.contiguous())
    return y


def attend(q, k, v):
    """q, k, v [B, H, T, D]; the fused kernel where this PyTorch has one."""
    if hasattr(F, 'scaled_dot_product_attention'):
        return F.scaled_dot_product_attention(q, k, v)
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, -1) @ v


def layer_norm(p, name, x):
    return F.layer_norm(x, x.shape[-1:], p[name + '.weight'], p[name + '.bias'], 1e-5)


def linear(p, name, x):
    return F.linear(x, p[name + '.weight'], p[name + '.bias'])


def transformer_layer(p, x, heads, norm1='norm1', norm2='norm2', ffn1='ffn1', ffn2='ffn2', prefix=''):
    B, T, D = x.shape
    q, k, v = linear(p, prefix + 'qkv', layer_norm(p, prefix + norm1, x)).view(B, T, 3, heads, D // heads).permute(2, 0, 3, 1, 4)
    x = x + linear(p, prefix + 'proj', attend(q, k, v).transpose(1, 2).reshape(B, T, D))
    return x + linear(p, prefix + ffn2, F.gelu(linear(p, prefix + ffn1, layer_norm(p, prefix + norm2, x))))


def info_nce(c, t, negatives):
    """c, t [N, P], negatives [N, K] rows of t."""
    candidates = torch.cat([t.unsqueeze(1), t[negatives]], 1)
    logits = F.cosine_similarity(c.unsqueeze(1), candidates, -1) / 0.1
    return F.cross_entropy(logits, torch.zeros(len(c), dtype=torch.long, device=c.device))


FORWARD = {
    'matmul': lambda w, i: i['a'] @ i['b'],
    'conv1d': lambda w, i: F.conv1d(i['x'], i['w'], stride=w['stride']),
    'softmax': lambda w, i: torch.softmax(i['x'], -1),
    'layer_norm': lambda w, i: F.layer_norm(i['x'], i['x'].shape[-1:], i['weight'], i['bias'], 1e-5),
    'attention': lambda w, i: attend(i['q'], i['k'], i['v']),
    'info_nce': lambda w, i: info_nce(i['anchors'], i['candidates'], i['negatives']).reshape(1),
    'transformer_layer': lambda w, i: transformer_layer(i, i['x'], w['H']),
}
# Tensors whose last two axes PyTorch has the other way round.
SWAPPED = {'conv1d': ('x', 'w', 'up', 'y')}


class OpArm:
    """One computation; forward, or forward and the gradients of sum(y * up)."""

    def __init__(self, work, grad, sets):
        self.work, self.grad, self.swapped, self.results = work, grad, SWAPPED.get(work['op'], ()), {}
        self.sets = []
        for tensors in sets:
            inputs = {n: (t.transpose(-1, -2).contiguous() if n in self.swapped else t).to(DEVICE) for n, t in tensors.items()}
            if work['op'] == 'matmul' and not grad and PRECISION in HALF:
                # Nothing to convert in the timed run: this is what the library's product of that type can do.
                inputs = {n: t.to(HALF[PRECISION]) for n, t in inputs.items()}
            for n, t in inputs.items():
                if grad and t.is_floating_point() and n != 'up':
                    t.requires_grad_()
            self.sets.append(inputs)

    def run(self, index):
        inputs = self.sets[index]
        wanted = {n: t for n, t in inputs.items() if t.requires_grad}
        with torch.set_grad_enabled(self.grad), autocast():
            y = FORWARD[self.work['op']](self.work, inputs)
        if self.grad:
            up = inputs['up'].to(y.dtype)
            self.results = dict(zip(('d.' + n for n in wanted), torch.autograd.grad(y, list(wanted.values()), up)))
        else:
            self.results = {'y': y}

    def outputs(self):
        return {n: t.transpose(-1, -2) if n.removeprefix('d.') in self.swapped else t for n, t in self.results.items()}


class TorchStepArm:
    """The optimisation step of bench/workloads/torch-step.ts; parameters start as in set 0 and go on from run to run."""
    DATA = ('wav', 'mask', 'anchor', 'negatives', 'weight')
    STRIDES = (5, 2, 2, 2, 2, 2, 2)

    def __init__(self, work, grad, sets):
        self.parameters = {n: t.to(DEVICE).requires_grad_() for n, t in sets[0].items() if n not in self.DATA}
        self.optimiser = torch.optim.AdamW(list(self.parameters.values()), lr=5e-4, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01)
        self.sets, self.loss = [], None
        for tensors in sets:
            # Anchors that are only filler are cut off: shapes may change from step to step here.
            used = int(tensors['weight'].sum().item())
            data = {'wav': tensors['wav'], 'mask': tensors['mask'] > 0, 'anchor': tensors['anchor'][:used]}
            # Rows of the list of anchors instead of frames.
            row = torch.zeros(tensors['mask'].numel(), dtype=torch.long)
            row[data['anchor']] = torch.arange(used)
            data['negatives'] = row[tensors['negatives'][:used]]
            self.sets.append({n: t.to(DEVICE) for n, t in data.items()})

    def forward(self, wav, mask, anchor, negatives):
        p, x = self.parameters, wav.unsqueeze(1)
        for i, stride in enumerate(self.STRIDES):
            x = F.gelu(F.conv1d(x, p[f'ext.convs.{i}.weight'], stride=stride))
        z = layer_norm(p, 'ext.norm', dense_gradient(x).transpose(1, 2))
        h = torch.where(mask.unsqueeze(-1), p['mask_emb'], linear(p, 'inp', z)) + p['pos'][: z.shape[1]]
        for i in range(4):
            h = transformer_layer(p, h, 4, 'n1', 'n2', 'f1', 'f2', f'blocks.{i}.')
        c, t = linear(p, 'out', layer_norm(p, 'norm', h)), linear(p, 'tgt', z)
        return info_nce(c.flatten(0, 1)[anchor], t.flatten(0, 1)[anchor], negatives)

    def run(self, index):
        self.optimiser.zero_grad(set_to_none=True)
        with autocast():
            loss = self.forward(**self.sets[index])
        loss.backward()
        self.optimiser.step()
        self.loss = loss.detach()

    def outputs(self):
        return {'y': self.loss.reshape(1)}


def read_sets(path, sets):
    """Tensors of every set; those with the same offset are one. Integers become the int64 that PyTorch indexes with."""
    with open(path, 'rb') as file:
        data = bytearray(file.read())
    seen = {}

    def tensor(t):
        if t['offset'] not in seen:
            kind = {'f32': torch.float32, 'i32': torch.int32}[t['dtype']]
            count = 1
            for n in t['shape']:
                count *= n
            x = torch.frombuffer(data, dtype=kind, count=count, offset=t['offset']).reshape(t['shape'])
            seen[t['offset']] = x.long() if t['dtype'] == 'i32' else x.clone()
        return seen[t['offset']]
    return [{n: tensor(t) for n, t in tensors.items()} for tensors in sets]


def write_outputs(path, outputs):
    listed = []
    with open(path, 'wb') as file:
        for name, t in outputs.items():
            t = t.detach().float().cpu().contiguous()
            listed.append({'name': name, 'offset': file.tell(), 'count': t.numel()})
            file.write(ctypes.string_at(t.data_ptr(), t.numel() * 4))
    return listed


def forget_peak():
    """Peaks count from here; on CPUs where Linux lets a process reset its own."""
    if DEVICE == 'cuda':
        torch.cuda.reset_peak_memory_stats()
    elif os.access('/proc/self/clear_refs', os.W_OK):
        with open('/proc/self/clear_refs', 'w') as file:
            file.write('5')


def peak_bytes():
    if DEVICE == 'cuda':
        return torch.cuda.max_memory_allocated()
    if os.access('/proc/self/status', os.R_OK):
        with open('/proc/self/status') as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith('VmHWM'))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(arm, index, times):
    """Means of one run, of so many in a row: by the wall clock, and on a CUDA device by its own."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if DEVICE == 'cuda' else None
    synchronise()
    started = time.perf_counter()
    if events:
        events[0].record()
    for _ in range(times):
        arm.run(index)
    if events:
        events[1].record()
    synchronise()
    reply = {'ms': (time.perf_counter() - started) * 1e3 / times}
    if events:
        reply['device_ms'] = events[0].elapsed_time(events[1]) / times
    return reply


def answer(request, arms):
    command, key = request['command'], request.get('arm')
    if command == 'arm':
        forget_peak()
        work = request['work']
        arms[key] = (TorchStepArm if work['op'] == 'torch_step' else OpArm)(work, request['grad'], read_sets(request['file'], request['sets']))
        return {}
    if command == 'run':
        return run(arms[key], request['set'], request['times'])
    if command == 'outputs':
        return {'outputs': write_outputs(request['file'], arms[key].outputs())}
    if command == 'peak':
        return {'bytes': peak_bytes()}
    if command == 'dispose':
        del arms[key]
        return {}
    raise ValueError(f'unknown command {command}')


def sgemm_rate():
    """GFLOP/s of a product of 512 x 512: PyTorch packages that link the system's BLAS are 25 times slower where that is the reference BLAS."""
    a, best = torch.ones(512, 512), float('inf')
    for _ in range(3):
        started = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - started)
    return 2 * 512 ** 3 / best / 1e9


def main():
    torch.set_num_threads(THREADS)
    if DEVICE == 'cuda':
        if not torch.cuda.is_available():
            return say({'missing': f'PyTorch {torch.__version__} finds no CUDA device'})
        name = torch.cuda.get_device_name()
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = PRECISION == 'tf32'
    else:
        name = f'sgemm {sgemm_rate():.0f} GFLOP/s'
    say({'torch': torch.__version__, 'device': name})
    arms = {}
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line), arms)
        except Exception as error:  # told to the caller, who decides what becomes of the arm
            reply = {'error': f'{type(error).__name__}: {error}'}
        say(reply)


main()
