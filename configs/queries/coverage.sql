-- Share of segments with each modality, agreement and origin: in all, by channel and by video
WITH
  current AS (
    SELECT
      video_id,
      count(*) AS segments,
      count(*) FILTER (agreement = 'agree') AS agree,
      count(*) FILTER (agreement = 'disagree') AS disagree,
      count(*) FILTER (agreement = 'single') AS single,
      count(*) FILTER (agreement = 'uncertain') AS uncertain,
      count(*) FILTER (agreement = 'absent') AS absent,
      count(*) FILTER (origin = 'consensus') AS by_consensus,
      count(*) FILTER (origin = 'fusion') AS by_fusion,
      count(*) FILTER (origin = 'single') AS by_single,
      count(*) FILTER (origin = 'human') AS by_human,
      count(*) FILTER (origin = 'none') AS unlabelled
    FROM labels
    GROUP BY video_id
  ),
  looked AS (  -- a model looks at all segments of a video, or at none
    SELECT
      video_id,
      backend,
      any_value(modality) AS modality,
      count(*) FILTER (status = 'ok') AS n  -- not WHERE: Arrow would copy every row that is left
    FROM predictions
    GROUP BY video_id, backend
  ),
  present AS (
    SELECT
      c.video_id,
      coalesce(sum(p.n) FILTER (p.modality = 'text'), 0) AS with_text,
      coalesce(sum(p.n) FILTER (p.modality = 'face'), 0) AS with_face,
      coalesce(sum(p.n) FILTER (p.modality = 'audio'), 0) AS with_audio
    FROM current_runs AS c
    JOIN runs AS r USING (run_id)
    LEFT JOIN looked AS p ON p.video_id = c.video_id AND list_contains(r.backends, p.backend)
    GROUP BY c.video_id
  ),
  seen AS (
    SELECT
      coalesce(v.channel, v.channel_id, '(none)') AS channel,
      v.title,
      v.status,
      c.* EXCLUDE (video_id),
      p.* EXCLUDE (video_id),
      v.video_id
    FROM videos AS v
    LEFT JOIN current AS c USING (video_id)
    LEFT JOIN present AS p USING (video_id)
  )
SELECT
  CASE grouping(channel, video_id) WHEN 0 THEN 'video' WHEN 1 THEN 'channel' ELSE 'all' END AS level,
  channel,
  video_id,
  CASE WHEN grouping(channel, video_id) = 0 THEN any_value(title) END AS title,
  count(*) AS videos,
  count(*) FILTER (status = 'error') AS videos_failed,
  coalesce(sum(segments), 0)::BIGINT AS segments,
  sum(with_text) / sum(segments) AS with_text,
  sum(with_face) / sum(segments) AS with_face,
  sum(with_audio) / sum(segments) AS with_audio,
  sum(agree) / sum(segments) AS agree,
  sum(disagree) / sum(segments) AS disagree,
  sum(single) / sum(segments) AS single,
  sum(uncertain) / sum(segments) AS uncertain,
  sum(absent) / sum(segments) AS absent,
  sum(by_consensus) / sum(segments) AS by_consensus,
  sum(by_fusion) / sum(segments) AS by_fusion,
  sum(by_single) / sum(segments) AS by_single,
  sum(by_human) / sum(segments) AS by_human,
  sum(unlabelled) / sum(segments) AS unlabelled
FROM seen
GROUP BY GROUPING SETS ((), (channel), (channel, video_id))
ORDER BY grouping(channel, video_id) DESC, channel, title, video_id
