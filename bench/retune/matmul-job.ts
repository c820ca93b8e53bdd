/** Square float32 products through the public matmul; a transposed operand is a view. */

import { hostTensor } from '../../src/core/host-tensor.ts';
import { matmul } from '../../src/ops/matmul/matmul.ts';
import { transpose } from '../../src/ops/views.ts';
import { noGrad } from '../../src/tensor/context.ts';
import { fromHost } from '../../src/tensor/factory.ts';
import { scope } from '../../src/tensor/with-scope.ts';
import type { RequestOf, Timing } from '../driver/protocol.ts';
import { mulberry32 } from '../materials.ts';

export function timeProducts(request: RequestOf<'matmul'>): Timing {
  const { size, transposeA, transposeB, warm, steps } = request;
  const random = mulberry32(1);
  const matrix = (): Float32Array =>
    Float32Array.from({ length: size * size }, () => random() - 0.5);
  return noGrad(() =>
    scope(() => {
      const a = fromHost(hostTensor(matrix(), [size, size], 'float32'));
      const b = fromHost(hostTensor(matrix(), [size, size], 'float32'));
      const left = transposeA ? transpose(a, 0, 1) : a;
      const right = transposeB ? transpose(b, 0, 1) : b;
      const cpu = process.cpuUsage();
      const time = (): number => {
        const began = performance.now();
        scope(() => void matmul(left, right));
        return performance.now() - began;
      };
      for (let i = 0; i < warm; i++) time();
      const ms = Array.from({ length: steps }, time);
      const { user, system } = process.cpuUsage(cpu);
      return { ms, cpuSeconds: (user + system) / 1e6 };
    }),
  );
}
