-- Sentiment through one video, segment by segment, with its running mean over five segments
-- $video: id or title of a video (else the one with most segments)
SELECT video_id AS chosen
FROM labels
WHERE $video::VARCHAR IS NULL OR video_id = $video::VARCHAR OR title = $video::VARCHAR
GROUP BY video_id
ORDER BY count(*) DESC, video_id
LIMIT 1;

WITH
  scored AS (
    SELECT
      *,
      CASE  -- from -1 to 1; where a human gave the sentiment, that
        WHEN confidence IS NOT NULL THEN sentiment_probs[3] - sentiment_probs[1]
        WHEN sentiment = 'positive' THEN 1
        WHEN sentiment = 'negative' THEN -1
        WHEN sentiment = 'neutral' THEN 0
      END::DOUBLE AS score
    FROM labels
    WHERE video_id = $chosen::VARCHAR
  )
SELECT
  printf('%d:%02d', start_ms // 60000, start_ms // 1000 % 60) AS at,
  sentiment,
  emotion,
  score,
  avg(score) OVER (ORDER BY start_ms ROWS BETWEEN 2 PRECEDING AND 2 FOLLOWING) AS running_mean,
  origin,
  text,
  title,
  segment_id,
  start_ms
FROM scored
ORDER BY start_ms
