// Embeddings over HTTP (Node 20 or newer):
//
//   node serve.mjs --port 8080 --checkpoint mgf-tiny.safetensors
//   curl --data-binary @speech.wav 'http://127.0.0.1:8080/embed?pool=mean'
//   curl -F file=@speech.wav 'http://127.0.0.1:8080/embed?pool=mean'
//
// POST /embed takes a WAV, FLAC, MP3, Ogg Vorbis or Opus file, as the body or as the file of a form; `layer`
// and `pool` (none, mean) as query. Answers { frames, width, layer, data }. GET /health answers 200 while
// requests are taken, 503 while the service stops or after the device is lost.
//
// Only this machine reaches it, unless --host names another interface. SIGTERM and SIGINT let it answer what
// it has begun.
import { createServer } from 'node:http';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { decodeAudio, MGF, MGFError, toMono16k } from 'mgf-webgpu';

export const LIMITS = {
  /** Largest body, and all bodies that are held or arriving at one time. */
  bodyBytes: 20e6,
  bytesInFlight: 200e6,
  /** A sender has to keep up this many bytes a second on average, after a grace period in ms. */
  bytesPerSecond: 10e3,
  graceMs: 5000,
  /** Longest recording in seconds. */
  seconds: 120,
  /** Recordings that wait for the device or are on it; further ones are told to come back. */
  requests: 64,
  /** Recordings that are embedded together. */
  batch: 16,
};

/** What the sender is told: a status, a sentence, headers. */
class Refusal extends Error {
  constructor(status, message, headers = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

const comeBack = (message) => new Refusal(503, `${message}; try again soon`, { 'retry-after': '1' });

/**
 * Reads bodies. An upload holds no slot of the device, so that slow senders cannot shut others out; what all
 * of them hold in memory is bounded, and who sends too slowly is cut off.
 */
class Inbox {
  #limits;
  #bytes = 0;

  constructor(limits) {
    this.#limits = limits;
  }

  /** Calls `use` with the body, whose bytes count until it is done. */
  async read(request, use) {
    const upload = { chunks: [], size: 0 };
    try {
      await this.#receive(request, upload);
      return await use(Buffer.concat(upload.chunks));
    } finally {
      this.#bytes -= upload.size;
    }
  }

  #receive(request, upload) {
    const { bodyBytes, bytesInFlight, bytesPerSecond, graceMs } = this.#limits;
    const started = performance.now();
    let timer;
    const received = new Promise((resolve, reject) => {
      request.on('data', (chunk) => {
        upload.chunks.push(chunk);
        upload.size += chunk.length;
        this.#bytes += chunk.length;
        if (upload.size > bodyBytes)
          reject(new Refusal(413, `the file is larger than ${bodyBytes / 1e6} MB`));
        else if (this.#bytes > bytesInFlight) reject(comeBack('too many bytes are arriving'));
      });
      request.on('end', resolve);
      request.on('error', reject);
      timer = setInterval(() => {
        const late = (performance.now() - started - graceMs) / 1000;
        if (late <= 0 || upload.size >= late * bytesPerSecond) return;
        reject(new Refusal(408, `the file came at less than ${bytesPerSecond / 1e3} kB a second`));
      }, 250);
    });
    return received.finally(() => {
      clearInterval(timer);
      // What comes after a refusal is not kept.
      request.removeAllListeners('data');
    });
  }
}

/** Embeds what waits, batch after batch: requests of one kind that come while the device works are its next batch. */
class Batcher {
  #mgf;
  #limits;
  #waiting = [];
  #working = false;
  /** Recordings that wait or are on the device. */
  inside = 0;

  constructor(mgf, limits) {
    this.#mgf = mgf;
    this.#limits = limits;
  }

  async embed(pcm, options) {
    if (this.inside >= this.#limits.requests) throw comeBack('too many requests are waiting');
    this.inside++;
    try {
      return await new Promise((resolve, reject) => {
        this.#waiting.push({ pcm, options, kind: JSON.stringify(options), resolve, reject });
        void this.#work();
      });
    } finally {
      this.inside--;
    }
  }

  async #work() {
    if (this.#working) return;
    this.#working = true;
    while (this.#waiting.length > 0) {
      const { kind, options } = this.#waiting[0];
      const jobs = this.#waiting.filter((job) => job.kind === kind).slice(0, this.#limits.batch);
      this.#waiting = this.#waiting.filter((job) => !jobs.includes(job));
      try {
        const clips = jobs.map((job) => job.pcm);
        const embeddings = await this.#mgf.embed(clips, options);
        jobs.forEach((job, i) => job.resolve(embeddings[i]));
      } catch (error) {
        for (const job of jobs) job.reject(error);
      }
    }
    this.#working = false;
  }
}

/** The recording in a body: the body itself, or the first file of a form. */
async function recordingOf(request, body) {
  const type = request.headers['content-type'] ?? '';
  if (!type.startsWith('multipart/')) return body;
  const form = await new Response(body, { headers: { 'content-type': type } }).formData().catch(() => null);
  const file = form && [...form.values()].find((value) => typeof value !== 'string');
  if (!file) {
    const right = 'curl -F file=@speech.wav URL, or curl --data-binary @speech.wav URL';
    throw new Refusal(415, `this form holds no file; send one as: ${right}`);
  }
  return new Uint8Array(await file.arrayBuffer());
}

/** What an error answers. What the sender can mend is told; everything else is ours, and its details stay here. */
function answerOf(error) {
  // Nobody is left to hear the answer of an upload that was aborted.
  if (error.code === 'ECONNRESET') return null;
  if (error instanceof Refusal) {
    return [error.status, { error: error.message }, { connection: 'close', ...error.headers }];
  }
  if (error instanceof MGFError && ['audio', 'usage'].includes(error.code)) {
    return [422, { error: error.message }];
  }
  console.error(error);
  return [500, { error: 'the recording could not be embedded' }];
}

/** Starts the service. `limits` overrides LIMITS; `port` 0 takes a free one. */
export async function serve({ port = 8080, host = '127.0.0.1', checkpoint, adapter, ...rest } = {}) {
  const limits = { ...LIMITS, ...rest.limits };
  const mgf = await MGF.load(checkpoint, { adapter });
  const inbox = new Inbox(limits);
  const batcher = new Batcher(mgf, limits);
  let trouble = null;
  void mgf.lost.then((error) => {
    trouble ??= error.message;
  });

  async function embed(request, { searchParams }) {
    const layer = searchParams.get('layer');
    const options = {
      pool: searchParams.get('pool') ?? 'none',
      ...(layer !== null && { layer: Number(layer) }),
    };
    return inbox.read(request, async (body) => {
      const what = 'the recording';
      const pcm = await toMono16k(await decodeAudio(await recordingOf(request, body), what), what);
      if (pcm.length > limits.seconds * 16000) {
        throw new Refusal(413, `the recording is longer than ${limits.seconds} s`);
      }
      const { data, ...about } = await batcher.embed(pcm, options);
      return [200, { ...about, data: [...data] }];
    });
  }

  async function answer(request) {
    const url = URL.canParse(request.url, 'http://service') && new URL(request.url, 'http://service');
    if (url && url.pathname === '/health') {
      const status = { status: trouble ?? 'ok', adapter: mgf.adapter, requests: batcher.inside };
      return [trouble ? 503 : 200, status];
    }
    if (!url || url.pathname !== '/embed') return [404, { error: 'POST /embed or GET /health' }];
    if (request.method !== 'POST') return [405, { error: 'POST a recording' }, { allow: 'POST' }];
    if (trouble) return [503, { error: trouble }];
    return embed(request, url);
  }

  const server = createServer((request, response) => {
    const done = answer(request).catch(answerOf);
    void done.then((answered) => {
      if (!answered) return response.destroy();
      const [status, json, headers = {}] = answered;
      return response
        .writeHead(status, { 'content-type': 'application/json', ...headers })
        .end(JSON.stringify(json));
    });
  });
  await new Promise((resolve, reject) => server.once('error', reject).listen(port, host, resolve));
  const { address, family, port: taken } = server.address();

  return {
    url: `http://${family === 'IPv6' ? `[${address}]` : address}:${taken}`,
    adapter: mgf.adapter,
    /** Takes no more requests, answers those that are there, frees the device. */
    async stop() {
      trouble ??= 'stopping';
      await new Promise((resolve) => {
        server.close(resolve);
        server.closeIdleConnections();
      });
      mgf.dispose();
    },
  };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { values } = parseArgs({
    options: {
      port: { type: 'string', default: '8080' },
      host: { type: 'string', default: '127.0.0.1' },
      checkpoint: { type: 'string' },
      adapter: { type: 'string' },
    },
  });
  const service = await serve({ ...values, port: Number(values.port) });
  console.log(`${service.url} on ${service.adapter}`);
  for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => void service.stop());
}
