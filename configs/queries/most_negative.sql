-- The most negative moments, with what is said and a link to them
-- $limit = 20: rows at most
WITH
  lowest AS (  -- before links are made, for a few rows instead of all
    SELECT
      coalesce(confidence, 1) AS negative,  -- no probability where a human said so: certain
      emotion,
      origin,
      text,
      title,
      start_ms,
      segment_id,
      video_id
    FROM labels
    WHERE sentiment = 'negative'
    ORDER BY negative DESC, segment_id
    LIMIT $limit::BIGINT
  )
SELECT
  l.negative,
  l.emotion,
  l.origin,
  l.text,
  l.title,
  printf('%d:%02d', l.start_ms // 60000, l.start_ms // 1000 % 60) AS at,
  v.source_url || CASE
    WHEN NOT regexp_matches(v.source_url, '^https?://') THEN '#t='
    WHEN contains(v.source_url, '?') THEN '&t='
    ELSE '?t='
  END || (l.start_ms // 1000) AS link
FROM lowest AS l
LEFT JOIN videos AS v USING (video_id)
ORDER BY l.negative DESC, l.segment_id
