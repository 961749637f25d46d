-- Share of segments with each modality, agreement and origin: in all, by channel and by video
WITH
  present AS (
    SELECT l.segment_id, list(DISTINCT p.modality) AS modalities
    FROM labels AS l
    JOIN predictions AS p ON p.segment_id = l.segment_id AND list_contains(l.backends, p.backend)
    WHERE p.status = 'ok'
    GROUP BY l.segment_id
  ),
  seen AS (
    SELECT
      coalesce(v.channel, v.channel_id, '(none)') AS channel,
      v.video_id,
      v.title,
      v.status,
      l.segment_id,
      l.agreement,
      l.origin,
      coalesce(p.modalities, []) AS modalities
    FROM videos AS v
    LEFT JOIN labels AS l USING (video_id)
    LEFT JOIN present AS p USING (segment_id)
  )
SELECT
  CASE grouping(channel, video_id) WHEN 0 THEN 'video' WHEN 1 THEN 'channel' ELSE 'all' END AS level,
  channel,
  video_id,
  CASE WHEN grouping(channel, video_id) = 0 THEN any_value(title) END AS title,
  count(DISTINCT video_id) AS videos,
  count(DISTINCT video_id) FILTER (status = 'error') AS videos_failed,
  count(segment_id) AS segments,
  avg(list_contains(modalities, 'text')::INT) FILTER (segment_id IS NOT NULL) AS with_text,
  avg(list_contains(modalities, 'face')::INT) FILTER (segment_id IS NOT NULL) AS with_face,
  avg(list_contains(modalities, 'audio')::INT) FILTER (segment_id IS NOT NULL) AS with_audio,
  avg((agreement = 'agree')::INT) AS agree,
  avg((agreement = 'disagree')::INT) AS disagree,
  avg((agreement = 'single')::INT) AS single,
  avg((agreement = 'uncertain')::INT) AS uncertain,
  avg((agreement = 'absent')::INT) AS absent,
  avg((origin = 'consensus')::INT) AS by_consensus,
  avg((origin = 'fusion')::INT) AS by_fusion,
  avg((origin = 'single')::INT) AS by_single,
  avg((origin = 'human')::INT) AS by_human,
  avg((origin = 'none')::INT) AS unlabelled
FROM seen
GROUP BY GROUPING SETS ((), (channel), (channel, video_id))
ORDER BY grouping(channel, video_id) DESC, channel, title, video_id
