/** A time-memory frontier as a picture: extra time over step memory, estimated and measured. */

import { formatBytes } from '../core/bytes.ts';
import type { FrontierPoint } from '../compile/frontier.ts';
import type { MeasuredPoint } from './frontier.ts';

const width = 720;
const height = 440;
const margin = { left: 70, right: 24, top: 48, bottom: 56 };

/** An SVG document of its own, readable on light and dark backgrounds. */
export function frontierSvg(
  title: string,
  estimated: readonly FrontierPoint[],
  measured: readonly MeasuredPoint[] = [],
): string {
  const all = [...estimated, ...measured];
  const highestBytes =
    niceAbove(Math.max(1, ...all.map((point) => point.peakBytes)) / 2 ** 20) * 2 ** 20;
  const highestTime = niceAbove(Math.max(0.01, ...all.map((point) => point.extraTime)) * 100) / 100;
  const x = (bytes: number): number =>
    margin.left + (bytes / highestBytes) * (width - margin.left - margin.right);
  const y = (share: number): number =>
    height - margin.bottom - (share / highestTime) * (height - margin.top - margin.bottom);
  const path = (
    points: readonly { readonly peakBytes: number }[],
    of: (i: number) => number,
  ): string =>
    points
      .map(
        (point, i) =>
          `${i === 0 ? 'M' : 'L'}${x(point.peakBytes).toFixed(1)} ${y(of(i)).toFixed(1)}`,
      )
      .join(' ');
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  const grid = ticks.flatMap((tick) => {
    const across = x(highestBytes * tick);
    const up = y(highestTime * tick);
    return [
      `<path class="grid" d="M${across} ${margin.top}V${height - margin.bottom}M${margin.left} ${up}H${width - margin.right}"/>`,
      `<text x="${across}" y="${height - margin.bottom + 20}" text-anchor="middle">${formatBytes(Math.round(highestBytes * tick))}</text>`,
      `<text x="${margin.left - 8}" y="${up + 4}" text-anchor="end">${(100 * highestTime * tick).toFixed(1)} %</text>`,
    ];
  });
  const dots = measured.map(
    (point) =>
      `<circle class="measured" cx="${x(point.peakBytes).toFixed(1)}" cy="${y(Math.max(0, point.extraTime)).toFixed(1)}" r="4.5"><title>${formatBytes(point.peakBytes)}, ${point.ms.toFixed(1)} ms</title></circle>`,
  );
  const legend = [
    ['<path class="estimated" d="M0 0H22"/>', 'estimated'],
    ['<path class="bound" d="M0 0H22"/>', 'proven bound'],
    ...(measured.length > 0
      ? [['<circle class="measured" cx="11" cy="0" r="4.5"/>', 'measured']]
      : []),
  ].map(
    ([mark, text], i) =>
      `<g transform="translate(${width - margin.right - 130} ${margin.top + 14 + 20 * i})">${mark}<text x="30" y="4">${text}</text></g>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeXml(title)}">
<style>
text { font: 12px system-ui, sans-serif; fill: #555 } .title { font-size: 15px; font-weight: 600 }
.grid { stroke: #8884; fill: none } .estimated { stroke: #2563eb; stroke-width: 2; fill: none }
.bound { stroke: #2563eb; stroke-dasharray: 4 4; fill: none } .measured { fill: #ea580c }
@media (prefers-color-scheme: dark) { text { fill: #bbb } }
</style>
<text class="title" x="${margin.left}" y="24">${escapeXml(title)}</text>
${grid.join('\n')}
<path class="bound" d="${path(estimated, (i) => estimated[i]?.extraTimeBound ?? 0)}"/>
<path class="estimated" d="${path(estimated, (i) => estimated[i]?.extraTime ?? 0)}"/>
${dots.join('\n')}
${legend.join('\n')}
<text x="${(margin.left + width - margin.right) / 2}" y="${height - 14}" text-anchor="middle">step memory</text>
<text transform="translate(18 ${(margin.top + height - margin.bottom) / 2}) rotate(-90)" text-anchor="middle">time added by recomputing</text>
</svg>
`;
}

/** The least of 1, 2, 4, 5, 10 times a power of ten that is not below `value`. */
function niceAbove(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  const factor = [1, 2, 4, 5, 10].find((step) => step * power >= value) ?? 10;
  return factor * power;
}

function escapeXml(text: string): string {
  return text.replace(
    /[&<>"]/g,
    (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c] ?? c,
  );
}
