/** Whether the server answers, and with which model. */

import { ApiError, type ApiErrorKind } from "./api-error";
import { listModels, type Model } from "./api";
import { settings } from "./settings.svelte";

export type ServerStatus = "connecting" | "ready" | "loading" | "unreachable" | "unauthorized";

const RETRY_MS = 2000;
const STATUS: Partial<Record<ApiErrorKind, ServerStatus>> = {
  loading: "loading",
  unauthorized: "unauthorized",
};

export const server: { status: ServerStatus; model: Model | null } = $state({
  status: "connecting",
  model: null,
});

let timer: ReturnType<typeof setTimeout> | undefined;

/** Asks for the model, and asks again until the server is ready or wants a key. */
export async function connect(): Promise<void> {
  clearTimeout(timer);
  try {
    const models = await listModels(settings.apiKey, AbortSignal.timeout(10_000));
    server.model = models[0] ?? null;
    server.status = "ready";
  } catch (error) {
    server.status = (error instanceof ApiError && STATUS[error.failure.kind]) || "unreachable";
    if (server.status !== "unauthorized") timer = setTimeout(() => void connect(), RETRY_MS);
  }
}
