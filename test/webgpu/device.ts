/**
 * A WebGPU device for tests, or the reason why there is none. Uses what the machine has; without a
 * GPU, SwiftShader (a Vulkan driver in software that Chromium brings along) does. Settings:
 * VK_ICD_FILENAMES names the Vulkan driver's description, RETUNE_TEST_WEBGPU=off skips.
 */

import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import path from 'node:path';
import type { WgslBinding } from '../../src/codegen/wgsl/storage.ts';
import type { Workgroups } from '../../src/codegen/wgsl/workgroups.ts';

/** Folders where distributions and browsers keep SwiftShader. */
const softwareDriverFolders = [
  '/usr/lib/chromium',
  '/usr/lib/chromium-browser',
  '/usr/lib64/chromium-browser',
  '/opt/google/chrome',
  '/snap/chromium/current/usr/lib/chromium-browser',
];

export interface Shader {
  readonly code: string;
  readonly entryPoint: string;
  readonly bindings: readonly WgslBinding[];
  readonly workgroups: Workgroups;
}

export interface TestDevice {
  /** Driver and features, for printing. */
  readonly description: string;
  /** Compiles only; throws with the compiler's messages. */
  readonly compile: (code: string) => Promise<void>;
  /** Runs a shader once; `buffers[i]` is bound to binding i and holds the result afterwards. */
  readonly run: (shader: Shader, buffers: readonly Uint8Array[]) => Promise<void>;
  readonly destroy: () => void;
}

export async function openTestDevice(): Promise<TestDevice | { readonly missing: string }> {
  if (process.env.RETUNE_TEST_WEBGPU === 'off') return { missing: 'RETUNE_TEST_WEBGPU is off' };
  let webgpu: typeof import('webgpu');
  try {
    chooseDriver();
    webgpu = await import('webgpu');
  } catch (error) {
    return { missing: `the webgpu package does not load: ${String(error)}` };
  }
  Object.assign(globalThis, webgpu.globals);
  const gpu = webgpu.create([]);
  keepAlive.add(gpu);
  const adapter = await gpu.requestAdapter();
  if (!adapter) return { missing: 'no WebGPU adapter (install chromium for its SwiftShader)' };
  const device = await adapter.requestDevice();
  return {
    description: `${adapter.info.vendor} ${adapter.info.description}`.trim(),
    compile: async (code) => {
      await compile(device, code);
    },
    run: (shader, buffers) => runShader(device, shader, buffers),
    destroy: () => {
      device.destroy();
      keepAlive.delete(gpu);
    },
  };
}

/** The native GPU object must outlive its device. */
const keepAlive = new Set<GPU>();

function chooseDriver(): void {
  if (process.platform !== 'linux') return;
  const hardware = existsSync('/dev/dri') || existsSync('/dev/nvidiactl');
  if (hardware && process.env.VK_ICD_FILENAMES === undefined) return;
  for (const folder of softwareDriverFolders) {
    const description = path.join(folder, 'vk_swiftshader_icd.json');
    if (!existsSync(description)) continue;
    process.env.VK_ICD_FILENAMES ??= description;
    const loader = path.join(folder, 'libvulkan.so.1');
    if (!existsSync(loader)) return;
    try {
      // Dawn asks for libvulkan.so.1 by name; one that is loaded already is found wherever it lies.
      const noDelete = 0x1000;
      process.dlopen({ exports: {} }, loader, constants.dlopen.RTLD_NOW | noDelete);
    } catch {
      // Always: the library is no Node module. It stays loaded.
    }
    return;
  }
}

async function compile(device: GPUDevice, code: string): Promise<GPUShaderModule> {
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code });
  const info = await module.getCompilationInfo();
  const error = await device.popErrorScope();
  const messages = info.messages.filter((message) => message.type === 'error');
  if (error || messages.length > 0) {
    const lines = messages.map((m) => `${m.lineNum}:${m.linePos} ${m.message}`);
    throw new Error(`${lines.join('\n') || error?.message}\n${numbered(code)}`);
  }
  return module;
}

async function runShader(
  device: GPUDevice,
  shader: Shader,
  buffers: readonly Uint8Array[],
): Promise<void> {
  if (shader.workgroups[0] === 0) return;
  const module = await compile(device, shader.code);
  device.pushErrorScope('validation');
  const layout = device.createBindGroupLayout({
    entries: shader.bindings.map(({ binding, type }) => ({
      binding,
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type },
    })),
  });
  const pipeline = device.createComputePipeline({
    layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
    compute: { module, entryPoint: shader.entryPoint },
  });
  const bound = shader.bindings.map(({ binding, type }) => {
    const bytes = buffers[binding]!;
    const size = Math.max(16, Math.ceil(bytes.byteLength / 4) * 4);
    const usage = type === 'uniform' ? GPUBufferUsage.UNIFORM : GPUBufferUsage.STORAGE;
    const buffer = device.createBuffer({
      size,
      usage: usage | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC,
    });
    const padded = new Uint8Array(size);
    padded.set(bytes);
    device.queue.writeBuffer(buffer, 0, padded);
    return { binding, type, bytes, buffer, size };
  });
  const group = device.createBindGroup({
    layout,
    entries: bound.map(({ binding, buffer }) => ({ binding, resource: { buffer } })),
  });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(...shader.workgroups);
  pass.end();
  const results = bound.flatMap((entry) => {
    if (entry.type !== 'storage') return [];
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    const readback = device.createBuffer({ size: entry.size, usage });
    encoder.copyBufferToBuffer(entry.buffer, 0, readback, 0, entry.size);
    return [{ bytes: entry.bytes, readback }];
  });
  device.queue.submit([encoder.finish()]);
  const error = await device.popErrorScope();
  if (error) throw new Error(`${error.message}\n${numbered(shader.code)}`);
  for (const { bytes, readback } of results) {
    await readback.mapAsync(GPUMapMode.READ);
    bytes.set(new Uint8Array(readback.getMappedRange()).subarray(0, bytes.byteLength));
    readback.destroy();
  }
  for (const { buffer } of bound) buffer.destroy();
}

function numbered(code: string): string {
  return code
    .split('\n')
    .map((line, i) => `${String(i + 1).padStart(4)} ${line}`)
    .join('\n');
}
