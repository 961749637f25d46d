-- What has no label, or not all of it, and why: videos, addresses, and segments by video
-- $models = true: also segments of which a model says that it failed, or that they are foreign
-- $labels = true: also segments without a label
WITH
  tried AS (  -- of several attempts at an address the best counts
    SELECT
      source_id,
      arg_min(
        {'state': state, 'kind': kind, 'reason': reason, 'url': url, 'video_id': video_id},
        (array_position(['labelled', 'refused', 'failed', 'later'], state), tried_at)
      ) AS best
    FROM attempts
    GROUP BY source_id
  ),
  labelled AS (
    SELECT
      video_id,
      count(*) FILTER (agreement = 'absent') AS no_vote,
      count(*) FILTER (agreement <> 'absent') AS unsure
    FROM labels
    WHERE $labels::BOOLEAN AND sentiment IS NULL
    GROUP BY video_id
  ),
  seen AS (  -- by the models that made the current labels
    SELECT
      p.video_id,
      CASE p.status WHEN 'foreign' THEN 'foreign' ELSE 'error_' || p.modality END AS what,
      count(*) AS n,
      mode(p.note) AS why
    FROM (SELECT * FROM predictions WHERE $models::BOOLEAN AND status IN ('foreign', 'error')) AS p
    JOIN current_runs AS c USING (video_id)
    JOIN runs AS r USING (run_id)
    WHERE list_contains(r.backends, p.backend)
    GROUP BY ALL
  ),
  found AS (
    SELECT
      CASE
        WHEN v.status = 'error' THEN 'failed'
        WHEN c.video_id IS NULL AND s.video_id IS NULL THEN 'no_speech'
        WHEN c.video_id IS NULL THEN 'unfinished'
        WHEN regexp_matches(v.note, '(^|; )(incomplete|ends early): ') THEN 'incomplete'
        ELSE 'noted'
      END AS what,
      if(v.source_id IS NULL, v.media_path, v.source_url) AS video,  -- an address if fetched
      NULL AS segments,
      v.note AS why
    FROM videos AS v
    LEFT JOIN current_runs AS c USING (video_id)
    LEFT JOIN (SELECT DISTINCT video_id FROM segments) AS s USING (video_id)
    WHERE v.status = 'error' OR v.note IS NOT NULL OR c.video_id IS NULL
    UNION ALL
    SELECT
      CASE
        WHEN best.kind IN ('filtered', 'forgotten') THEN best.kind
        ELSE best.state
      END,
      best.url,
      NULL,
      best.reason
    FROM tried
    WHERE best.state <> 'labelled' AND best.video_id IS NULL
    UNION ALL
    SELECT s.what, if(v.source_id IS NULL, v.media_path, v.source_url), s.n, s.why
    FROM seen AS s JOIN videos AS v USING (video_id)
    UNION ALL
    SELECT 'no_vote', if(v.source_id IS NULL, v.media_path, v.source_url), l.no_vote, NULL
    FROM labelled AS l JOIN videos AS v USING (video_id) WHERE l.no_vote > 0
    UNION ALL
    SELECT 'unsure', if(v.source_id IS NULL, v.media_path, v.source_url), l.unsure, NULL
    FROM labelled AS l JOIN videos AS v USING (video_id) WHERE l.unsure > 0
  )
SELECT what, video, segments, why FROM found ORDER BY what, video
