"""
Shapes and dtypes of tensors in public signatures: what docstrings say, as jaxtyping reads it.

By module without the package's name, and by function, `Class.method`, or dataclass, whose
constructor is meant. `*n` are any axes, none included; `F` is any float of PyTorch, `A` any of
numpy. `test/project/test_shapes.py` compares all of it with the docstrings.
"""

from typing import Any

from jaxtyping import Bool, Float, Float32, Float64, Int, Int64, Integer, Shaped, UInt8
import numpy as np
from torch import Tensor


def F(shape: str) -> Any:
    return Float[Tensor, shape]


def A(shape: str) -> Any:
    return Float[np.ndarray, shape]


def A64(shape: str) -> Any:
    return Float64[np.ndarray, shape]


POSE = A64('4 4')
CAMERA = A64('3 3')
MASK = Bool[np.ndarray, 'n']
IDS = Int[np.ndarray, 'n']
IMAGE = UInt8[Tensor, 'H W 3']
PICTURE = UInt8[np.ndarray, 'H W 3']
ANY_FRAME = UInt8[np.ndarray, 'H W 3'] | UInt8[Tensor, 'H W 3']
GREY = UInt8[np.ndarray, 'H W']
SLOTS = Int64[Tensor, 'layers n']
TOKEN_IDS = Int64[Tensor, 'layers slots']
KV = F('heads tokens channels')
QKV = dict(query=KV, key=KV, value=KV)

GEOMETRY = {
    'geometry.se3': {
        'flu_from_optical': dict(returns=Float64[Tensor, '3 3']),
        'quaternion_to_matrix': dict(quaternion=F('*n 4'), returns=F('*n 3 3')),
        'matrix_to_quaternion': dict(rotation=F('*n 3 3'), returns=F('*n 4')),
        'quaternion_between': dict(first=F('*n 4'), second=F('*n 4'), returns=F('*n 4')),
        'make_transform': dict(
            rotation=F('*n 3 3'), translation=F('*n 3'), returns=F('*n 4 4')),
        'invert_transform': dict(transform=F('*n 4 4'), returns=F('*n 4 4')),
        'transform_points': dict(transform=F('4 4'), points=F('*n 3'), returns=F('*n 3')),
        'pose_encoding_to_camera': dict(
            pose_encoding=F('*n 9'), returns=tuple[F('*n 4 4'), F('*n 3 3')]),
        'unproject_depth': dict(
            depth=F('H W'), intrinsics=F('3 3'), returns=F('H W 3')),
    },
    'geometry.similarity': {
        'Similarity': dict(rotation=A('3 3'), translation=A('3')),
        'Similarity.points': dict(points=A('*n 3'), returns=A('*n 3')),
        'align': dict(estimate=A('N 3'), truth=A('N 3')),
        'rotation_between': dict(covariance=A('*n 3 3'), returns=tuple[A('*n 3 3'), Any]),
        'apply_to_pose': dict(similarity=A('*k 4 4'), pose=A('*n 4 4')),
        'inverse_similarity': dict(similarities=A('*n 4 4'), returns=A('*n 4 4')),
    },
    'geometry.quaternions': {
        'matrix_from_quaternion': dict(returns=A('3 3')),
        'pose_matrix': dict(returns=A('4 4')),
        'quaternion_from_matrix': dict(rotation=A('3 3')),
        'quaternions_from_matrices': dict(rotations=A('*n 3 3'), returns=A('*n 4')),
        'quaternion_products': dict(first=A('*n 4'), second=A('*m 4'), returns=A('*k 4')),
    },
    'geometry.camera_model': {
        'CameraModel': dict(
            camera_matrix=CAMERA, rectified_from_raw=CAMERA, rectified_matrix=CAMERA),
        'CameraModel.distort': dict(points=A('*n 2'), returns=A64('*n 2')),
        'CameraModel.source_of': dict(
            pixels=Shaped[np.ndarray, '*n 2'], returns=A64('*n 2')),
        'CameraModel.is_inside': dict(
            pixels=Shaped[np.ndarray, '*n 2'], returns=Bool[np.ndarray, '*n']),
        'CameraModel.rectification_map': dict(returns=A64('{self.height} {self.width} 2')),
    },
    'geometry.metrics': {
        'position_errors': dict(estimate=A('N 3'), truth=A('N 3')),
        'rotation_error': dict(estimate=A('N 3 3'), truth=A('N 3 3')),
        'relative_errors': dict(estimate=A('N 4 4'), truth=A('N 4 4')),
        'depth_errors': dict(estimate=A('N H W'), truth=A('N H W')),
        'cloud_errors': dict(estimate=A('N 3'), truth=A('M 3')),
        'camera_centres': dict(camera_from_world=A('n 4 4'), returns=A('n 3')),
        'nearest_rotation': dict(matrix=A('3 3'), returns=A('3 3')),
    },
}

IMAGES = {
    'images.preprocess': {
        'Resize.model_from_source': dict(returns=Float64[Tensor, '3 3']),
        'Resize.__call__': dict(
            frame=UInt8[Tensor, '{self.source_height} {self.source_width} 3'],
            returns=UInt8[Tensor, '{self.height} {self.width} 3']),
        'to_network_input': dict(image=IMAGE, returns=Float32[Tensor, '3 H W']),
    },
    'images.rectify': {
        'Rectification.__call__': dict(image=IMAGE, returns=UInt8[Tensor, 'h w 3']),
        'CameraView.model_image': dict(frame=IMAGE, returns=UInt8[Tensor, 'h w 3']),
        'DepthView.rectify': dict(depth=A('H W'), returns=A('H W')),
        'DepthViews.rectify': dict(depth=A('H W'), returns=A('H W')),
    },
    'images.image_codec': {
        'decode_image': dict(returns=UInt8[np.ndarray, 'height width 3']),
        'decode_compressed': dict(returns=UInt8[np.ndarray, 'height width 3']),
    },
    'images.depth_codec': {
        'decode_depth': dict(returns=Float32[np.ndarray, 'height width']),
        'decode_compressed_depth': dict(returns=Float32[np.ndarray, 'height width']),
    },
}

_STORE = {
    'begin_step': dict(token_ids=TOKEN_IDS),
    'copy': dict(sources=SLOTS, targets=SLOTS),
    'save': dict(slots=SLOTS, returns=list[Tensor]),
    'restore': dict(slots=SLOTS),
    'side_data': dict(slots=SLOTS, returns=list[Float32[Tensor, '_']]),
    'extremes': dict(slots=SLOTS, returns=list[Float32[Tensor, '1']]),
}

KV_CACHE = {
    'kv_cache.cache': {
        'KVCache.attend': dict(QKV, layer=int, returns=KV),
        'KVCache.attend_readonly': dict(QKV, layer=int, returns=KV),
        'KVCache.compact': dict(gapless=bool),
        'KVCache.written': dict(returns=list[Float32[Tensor, '_']]),
        'KVCache.kept_token_ids': dict(returns=list[Int64[Tensor, '{self.tokens}']]),
        'KVCache.visible_token_ids': dict(returns=list[Int64[Tensor, '_']]),
        'KVCache.health_numbers': dict(returns=F('4')),
    },
    'kv_cache.read_only': {'ReadOnlyCache.attend': dict(QKV, layer=int, returns=KV)},
    'kv_cache.store': {
        'Step': dict(slots=Int64[Tensor, 'tokens'], token_ids=TOKEN_IDS),
        'slot_index': dict(
            tensor=Shaped[Tensor, 'layers heads s m'], slots=SLOTS,
            returns=Int64[Tensor, 'layers heads n m']),
        'at_slots': dict(tensor=Shaped[Tensor, 'layers heads s m'], slots=SLOTS,
                         returns=Shaped[Tensor, 'layers heads n m']),
    },
    'kv_cache.dense_store': {
        'DenseStore.attend': dict(QKV, layer=int, returns=KV),
        **{f'DenseStore.{name}': shapes for name, shapes in _STORE.items()}},
    'kv_cache.packed_store': {
        'PackedStore.attend': dict(QKV, layer=int, returns=KV),
        'PackedStore.forced_evictions': dict(
            token_ids=Int64[Tensor, 'layers tokens'], returns=Bool[Tensor, 'layers tokens']),
        **{f'PackedStore.{name}': shapes for name, shapes in _STORE.items()}},
    'kv_cache.token_store': {
        'TokenStore.attend': dict(QKV, layer=int, returns=KV),
        'TokenStore.side_data': _STORE['side_data']},
    'kv_cache.grouped_store': {'GroupedStore.side_data': _STORE['side_data']},
    'kv_cache.policy': {
        'RetentionPolicy.remember': dict(key=F('heads tokens_per_step head_dim')),
        'RetentionPolicy.pooled_query': dict(
            query=F('heads tokens_per_step head_dim'), returns=F('heads head_dim')),
        'RetentionPolicy.rank': dict(
            scores=F('layers tokens'), token_ids=Int64[Tensor, 'layers tokens'],
            returns=Shaped[Tensor, 'layers tokens']),
        'RetentionPolicy.protected': dict(
            token_ids=Int64[Tensor, '*layers tokens'], returns=Bool[Tensor, '*layers tokens']),
        'RetentionPolicy.slots_of': dict(
            leaves=Bool[Tensor, 'layers tokens'], returns=Int64[Tensor, 'layers {count}']),
        'RetentionPolicy.evicted': dict(
            scores=F('layers tokens'), token_ids=Int64[Tensor, 'layers tokens'],
            forced_evictions=Bool[Tensor, 'layers tokens'] | None,
            newest=Int64[Tensor, 'layers tokens_per_step'] | None,
            returns=Int64[Tensor, 'layers {count}']),
        'pooling_weights': dict(returns=F('{tokens}')),
        'pooled_attention': dict(
            pooled=F('*layers heads d'), keys=F('*layers h tokens d'),
            returns=F('*layers heads tokens')),
        'dot_products': dict(vectors=F('*layers h d'), keys=F('*layers heads tokens d'),
                             returns=F('*layers heads tokens')),
    },
    'kv_cache.health': {
        'health_numbers': dict(token_ids=TOKEN_IDS, kept=F('layers'), returns=F('4'))},
    'kv_cache.scores': {
        'TokenScores.take_query': dict(query=F('heads tokens head_dim')),
        'TokenScores.add': dict(keys=F('layers heads used head_dim'),
                                values=F('layers heads used head_dim')),
        'TokenScores.note_evicted': dict(slots=SLOTS)},
}

MODEL = {
    'model.network': {
        'FramePrediction': dict(
            pose_encoding=F('9'), depth=F('H W'), depth_confidence=F('H W'),
            points=F('H W 3') | None, points_confidence=F('H W') | None),
        'depth_map': dict(raw=F('*n 2 H W'), returns=tuple[F('*n H W'), F('*n H W')]),
        'point_map': dict(raw=F('*n 4 H W'), returns=tuple[F('*n H W 3'), F('*n H W')]),
    },
    'model.streamvggt': {
        'StreamVGGT.first_frame': dict(image=F('3 H W')),
        'StreamVGGT.step': dict(image=F('3 H W')),
    },
    'model.lingbot.network': {
        'LingBotMap.first_frame': dict(image=F('3 H W')),
        'LingBotMap.first_frames': dict(images=F('S 3 H W')),
        'LingBotMap.step': dict(image=F('3 H W')),
        'camera_from_world': dict(encoding=F('*n 9'), returns=F('*n 9')),
    },
    'model.aggregator': {'Aggregator.forward': dict(image=F('3 H W'))},
    'model.lingbot.aggregator': {
        'LingBotAggregator.forward': dict(
            images=F('S 3 H W'), special=F('S special dim'), time=F('S 2 head_dim'))},
    'model.camera_head': {
        'CameraHead.forward': dict(
            camera_token=F('*n dim'), returns=F('{self.iterations} *m 9'))},
    'model.dpt_head': {'DPTHead.forward': dict(returns=F('N channels {height} {width}'))},
    'model.dinov2': {
        'PatchEmbed.forward': dict(image=F('*n 3 H W'), returns=F('*n patches dim')),
        'DinoVisionTransformer.forward': dict(
            image=F('*n 3 H W'), returns=F('*n patches dim'))},
    'model.positions': {
        'rotary_table': dict(
            positions=Shaped[Tensor, 'tokens 2'],
            returns=tuple[F('tokens {head_dim}'), F('tokens {head_dim}')]),
        'apply_rope': dict(
            x=F('*n tokens head_dim'), returns=F('*n tokens head_dim'))},
    'model.layers': {
        'self_attention': dict(query=F('*m t d'), key=F('*n s d'), value=F('*n s d'),
                               returns=F('*m t d')),
        'Attention.forward': dict(x=F('*n tokens dim'), returns=F('*n tokens dim')),
        'Block.forward': dict(x=F('*n tokens dim'), returns=F('*n tokens dim'))},
    'kernels.attention': {
        'attention': dict(query=F('heads tokens d'), key=F('heads n d'), value=F('heads n d'),
                          returns=F('heads tokens d')),
        'store_and_attend': dict(
            query=F('heads tokens d'), key=F('heads tokens d'), value=F('heads tokens d'),
            slots=Int64[Tensor, 'tokens'], keys=F('heads slots d'), values=F('heads slots d'),
            returns=F('heads tokens d'))},
    'kernels.packing': {
        'pack': dict(q=Shaped[Tensor, '*n size'], returns=UInt8[Tensor, '*n half']),
        'frame_statistics': dict(
            x=F('*n tokens head_dim'), returns=tuple[F('*n 1 head_dim'), F('*n 1 head_dim')])},
}

ENGINE = {
    'engine.frame_result': {
        'FrameResult': dict(
            image=UInt8[Tensor, 'H W 3'], pose_encoding=Float32[Tensor, '9'],
            camera_from_world=Float32[Tensor, '4 4'], intrinsics=Float32[Tensor, '3 3'],
            predicted_intrinsics=Float32[Tensor, '3 3'], depth=Float32[Tensor, 'H W'],
            depth_confidence=Float32[Tensor, 'H W'], points=Float32[Tensor, 'H W 3'] | None,
            points_confidence=Float32[Tensor, 'H W'] | None),
        'FrameResult.masked': dict(valid=Bool[Tensor, 'H W']),
        'FrameResult.mean_confidence': dict(returns=F('')),
        'FrameResult.depth_error': dict(returns=F('H W') | None),
        'FrameResult.typical_error': dict(returns=F('')),
        'FrameResult.numbers': dict(returns=Float32[Tensor, 'n']),
        'check_results': dict(returns=A64('K 4 4')),
    },
    'engine.frame_input': {
        'FrameInput.image': dict(frame=IMAGE, returns=UInt8[Tensor, 'h w 3']),
        'as_tensor': dict(returns=IMAGE)},
    'engine.stream_engine': {
        'StreamEngine.step': dict(frame=ANY_FRAME),
        'StreamEngine.accept': dict(returns=A64('K 4 4')),
        'StreamEngine.kept_token_ids': dict(returns=list[Int64[Tensor, '_']])},
}

_PACKED = F('N 5')
MAPPING = {
    'mapping.point_cloud': {'pack_cloud': dict(returns=F('*n 5'))},
    'mapping.point_map': {
        'PointMap.add': dict(cloud=_PACKED, map_from_cloud=F('4 4')),
        'PointMap.points': dict(returns=_PACKED)},
    'mapping.map_files': {
        'make_cloud': dict(points=A('N 3'), colours=Integer[np.ndarray, 'N 3'],
                           confidence=A('N'), returns=Shaped[np.ndarray, 'N']),
        'cloud_from_packed': dict(packed=Float32[np.ndarray, 'N 5'],
                                  returns=Shaped[np.ndarray, 'N']),
        'pack': dict(cloud=Shaped[np.ndarray, 'N'], returns=Float32[np.ndarray, 'N 5'])},
    'mapping.depth_scale': {
        'DepthScale.add': dict(depth=F('H W'), confidence=F('H W'), metric_depth=A('h w'))},
    'mapping.baseline_scale': {
        'BaselineScale.add': dict(positions=A('K 3'), metric_positions=A('K 3'))},
    'mapping.trajectory_scale': {
        'TrajectoryScale.add': dict(position=A('3'), metric_position=A('3'))},
    'mapping.trajectory': {
        'StampedPose.matrix': dict(returns=POSE),
        'StampedPose.from_matrix': dict(matrix=A('4 4'))},
    'mapping.transform_tree': {'TransformTree.lookup': dict(returns=POSE)},
    'mapping.occupancy_map': {
        'OccupancyMap.add': dict(points=A('N 3'), odom_from_camera=A('4 4')),
        'OccupancyMap.odom_from_grid': dict(returns=POSE)},
    'mapping.keyframes': {'Keyframes.takes': dict(pose=A('4 4'))},
}

SIX = A64('6 6')
TRAJECTORY = {
    'trajectory.projection': {
        'skew': dict(vectors=A('*n 3'), returns=A('*n 3 3')),
        'rotation': dict(vectors=A('*n 3'), returns=A('*n 3 3')),
        'rotation_vector': dict(rotations=A('*n 3 3'), returns=A('*n 3')),
        'motion': dict(small=A('*n 6'), returns=A('*n 4 4')),
        'inverse': dict(pose=A('4 4'), returns=POSE),
        'nearest_pose': dict(poses=A('*n 4 4'), returns=A('*n 4 4')),
        'rays': dict(pixels=A('n 2'), camera=A('3 3'), returns=A('n 3')),
        'to_camera': dict(points=A('n 3'), pose=A('4 4'), returns=A('n 3')),
        'project': dict(points=A('n 3'), camera=A('3 3'), returns=A('n 2')),
        'projection_jacobian': dict(points=A('n 3'), camera=A('3 3'), returns=A('n 2 3')),
    },
    'trajectory.pose': {
        'PoseFit': dict(pose=POSE, inliers=MASK, information=SIX),
        'fit_pose': dict(
            points=A('n 3'), along=A('n 3'), variance=A('n'), pixels=A('n 2'),
            camera=CAMERA, initial=POSE),
        'find_pose': dict(points=A('n 3'), pixels=A('n 2'), camera=CAMERA,
                          returns=A('4 4') | None),
        'inverse_covariance': dict(
            by_depth=A('n 2'), variance=A('n'), returns=A('n 2 2')),
    },
    'trajectory.two_motions': {
        'find_two_motions': dict(before=A('n 2'), now=A('n 2'), camera=CAMERA,
                                 returns=tuple[MASK, MASK] | None),
        'spanned_area': dict(pixels=A('n 2')),
        'sampson_errors': dict(essential=A('3 3'), before=A('n 2'), now=A('n 2'), camera=CAMERA,
                               returns=A('n')),
    },
    'trajectory.adjustment': {
        'Problem': dict(
            poses=A64('N 4 4'), free=Int[np.ndarray, 'W'], rays=A64('M 3'),
            log_inverse_depth=A64('M'), prior=A64('M'), prior_sigma=A64('M'),
            anchor=Int[np.ndarray, 'M'], seen_by=IDS, landmark=IDS, pixels=A('n 2'),
            camera=CAMERA),
        'Solution': dict(
            poses=A64('N 4 4'), log_inverse_depth=A64('M'), covariance=A64('w w') | None,
            depth_information=A64('M'), errors=A64('n'), shared=A64('6 6') | None),
    },
    'trajectory.frame': {
        'Frame': dict(
            grey=GREY, depth=A('h w'), confidence=A('h w'), world_from_camera=A('4 4'),
            depth_from_image=A('3 3'))},
    'trajectory.odometry': {
        'Estimate': dict(
            world_from_camera=POSE, odom_from_camera=POSE, covariance=SIX, step_covariance=SIX),
        'Odometry.camera': dict(returns=CAMERA),
        'Odometry.begin': dict(grey=GREY)},
    'trajectory.local_map': {
        'LocalMap.known': dict(ids=IDS, returns=MASK),
        'LocalMap.points': dict(ids=IDS, returns=tuple[A('n 3'), A('n 3'), A('n')]),
        'LocalMap.rays': dict(pixels=A('n 2'), returns=A('n 3'))},
    'trajectory.tracker': {
        'Tracks': dict(ids=IDS, pixels=A('n 2')),
        'Tracker.track': dict(image=GREY, guess=A('n 2') | None),
        'Tracker.corners': dict(image=GREY, taken=A('m 2'), returns=Float32[np.ndarray, 'n 2']),
        'sample_depth': dict(depth=A('h w'), pixels=A('n 2'), depth_from_image=A('3 3'),
                             returns=A('n'))},
    'trajectory.corrections': {
        'Corrections': dict(keyframes=Int[np.ndarray, 'K'], similarities=A64('K 4 4')),
        'Corrections.moved': dict(similarity=A('4 4'))},
    'trajectory.pose_graph': {
        'Edges': dict(
            first=Int[np.ndarray, 'E'], second=Int[np.ndarray, 'E'], measured=A64('E 4 4'),
            weight=A64('E 7'), cauchy=A64('E')),
        'GraphSolution': dict(nodes=A64('N 4 4'), lengths=A64('E')),
        'solve_graph': dict(nodes=A64('N 4 4')),
        'difference': dict(similarities=A('*n 4 4'), returns=A('*n 7')),
        'similarity_of': dict(step=A('7'), returns=POSE)},
    'trajectory.uncertainty': {
        'adjoint': dict(transform=A('4 4'), returns=SIX),
        'propagated': dict(covariance=SIX, step=A('4 4'), returns=SIX),
        'bounded': dict(covariance=SIX, returns=SIX),
        'Drift.step': dict(step=A('4 4'), information=A('6 6') | None,
                           carried_by=A('6 6') | None, returns=SIX)},
}

TABLE = {**GEOMETRY, **IMAGES, **KV_CACHE, **MODEL, **ENGINE, **MAPPING, **TRAJECTORY}
