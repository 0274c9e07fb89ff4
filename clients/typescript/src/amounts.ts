/** Amounts of US dollars: exact decimals, as text. */
import type { Totals } from "./gen/godoty/v1/metering.js";

/** Returns the cost of totals. Undefined: it is not known, or that of a call is not (yet). */
export function costOf(totals: Totals | undefined): string | undefined {
  return totals && !totals.pendingCalls && !totals.unresolvedCalls ? totals.costUsd : undefined;
}

/** Returns the sum of amounts. Undefined: one of them is. */
export function sumOf(amounts: readonly (string | undefined)[]): string | undefined {
  const [first, ...others] = amounts;
  return others.reduce((sum, each) => (sum === undefined || each === undefined ? undefined : plus(sum, each)), first);
}

function plus(one: string, other: string): string {
  const scale = Math.max(decimalsOf(one), decimalsOf(other));
  const sum = unitsOf(one, scale) + unitsOf(other, scale);
  const digits = (sum < 0n ? -sum : sum).toString().padStart(scale + 1, "0");
  const decimals = digits.slice(digits.length - scale).replace(/0+$/, "");
  return (sum < 0n ? "-" : "") + digits.slice(0, digits.length - scale) + (decimals && `.${decimals}`);
}

function decimalsOf(amount: string): number {
  return amount.split(".")[1]?.length ?? 0;
}

function unitsOf(amount: string, scale: number): bigint {
  return BigInt(amount.replace(".", "") + "0".repeat(scale - decimalsOf(amount)));
}
