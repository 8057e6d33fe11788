/** What can go wrong between the page and the server, told apart by what a person can do about it. */

export type ApiErrorKind =
  | "unreachable"
  | "unauthorized"
  | "too_long"
  | "invalid"
  | "busy"
  | "loading"
  | "cut"
  | "server";

/** A failure in the form in which a message keeps it. */
export interface Failure {
  kind: ApiErrorKind;
  /** What the server said; empty when it said nothing. */
  detail: string;
  /** Seconds after which the server asks to be tried again. */
  retryAfter?: number;
}

export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(readonly failure: Failure) {
    super(failure.detail || failure.kind);
  }
}

interface ErrorBody {
  error?: { message?: unknown; code?: unknown };
}

/** Reads an unsuccessful response; a body that is not ours (a proxy's page) is left out. */
export async function failureOf(response: Response): Promise<Failure> {
  const body = (await response.json().catch(() => ({}))) as ErrorBody | null;
  const code = String(body?.error?.code ?? "");
  const failure: Failure = {
    kind: kindOf(response.status, code),
    detail: detailOf(body) || `HTTP ${response.status}`,
  };
  const seconds = Number.parseFloat(response.headers.get("retry-after") ?? "");
  if (seconds > 0) failure.retryAfter = Math.ceil(seconds);
  return failure;
}

/** The message of an `{"error": …}` body or stream event; empty when there is none. */
export function detailOf(body: unknown): string {
  const message = (body as ErrorBody | null)?.error?.message;
  return typeof message === "string" ? message : "";
}

function kindOf(status: number, code: string): ApiErrorKind {
  if (code === "context_length_exceeded") return "too_long";
  if (status === 401 || status === 403) return "unauthorized";
  if (status === 429) return "busy";
  if (status === 503) return "loading";
  if (status === 502 || status === 504) return "unreachable";
  return status >= 400 && status < 500 ? "invalid" : "server";
}
