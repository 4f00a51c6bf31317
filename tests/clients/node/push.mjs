// pino-loki pushes two records to the store at argv[2], and fails when it is refused.
import pino from 'pino';
import { pinoLoki } from 'pino-loki';

const stream = pinoLoki({
  host: `http://${process.argv[2]}`,
  batching: false,
  silenceErrors: false,
  labels: { app: 'pino-app' },
});
const logger = pino({ level: 'debug' }, stream);
logger.info({ user_id: 7 }, 'user came');
logger.error({ status: 500 }, 'user failed');
stream.end();
