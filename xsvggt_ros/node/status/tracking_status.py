"""What the diagnostics say of the trajectory and its unit: the status *Tracking*."""

import math

from xsvggt_ros.node.status.snapshot import OK, Part, RECENT, Snapshot, WARN
from xsvggt_ros.node.tracked_pose import LoopState, TrackedPose


def tracking_status(s: Snapshot) -> Part:
    """Return the status; what is wrong is joined, so that nothing hides anything else."""
    values: dict[str, object] = {
        'resets': s.resets, 'last reset': s.last_reset or 'none', 'scale': _unit(s)}
    if s.report is not None:
        values['mean confidence'] = f'{s.report.confidence_mean:.3f}'
        values['expected depth error (%)'] = (
            f'{100 * s.report.depth_error:.0f}' if s.report.depth_error else 'not known')
        if s.report.tracked is not None:
            values.update(_tracked(s.report.tracked))
        else:
            values['pose from'] = 'network' + (
                ': trajectory.mode is for one camera' if s.cameras else '')
        if s.report.correction is not None:
            values['robot odometry'] = s.report.correction.state
    if s.tf_refused:
        values['TF refused'] = '; '.join(s.tf_refused[-3:])
        values['TF edges refused'] = len(s.tf_refused)
    warnings = list(lasting_warnings(s).values())
    if s.tf_fault is not None and s.tf_fault.age < RECENT:
        warnings.insert(0, s.tf_fault.message)
    if warnings:
        return WARN, '; '.join(warnings), values
    if s.report is None:
        return OK, 'no stream yet', values
    unit = 'in metres' if s.metres is not None else "in the network's own unit"
    return OK, f'{s.report.cache.frames} images in this stream, lengths {unit}', values


def lasting_warnings(s: Snapshot) -> dict[str, str]:
    """Return what the newest image says is wrong, by kind; the log has it if it lasts."""
    if s.report is None:
        return {}
    warnings = {}
    localization = s.report.localization
    if localization is not None and localization.since_ns is None:
        warnings['localization'] = f'{localization.describe()}; map.localize_in names the map'
    if s.report.correction is not None and s.report.correction.fault:
        warnings['odometry'] = s.report.correction.fault
    if 0 < s.max_depth_error < s.report.depth_error:
        warnings['depth'] = (
            f'the network expects its depth to be off by {100 * s.report.depth_error:.0f} %: it '
            'hardly knows such scenes. Point the camera at more than a bare surface, or take '
            'other weights (model.checkpoint, see `xsvggt weights`); '
            f'diagnostics.max_depth_error, {100 * s.max_depth_error:.0f} %, is the limit')
    return warnings


def _unit(s: Snapshot) -> str:
    if s.metres is None:
        return "the network's own unit"
    return f'{s.metres:.4g} m per unit' + ('' if s.scale else ', by the saved map')


def _tracked(tracked: TrackedPose) -> dict[str, object]:
    values: dict[str, object] = {
        'pose from': tracked.source, 'landmarks': tracked.inliers,
        'reprojection error': f'{tracked.error:.2f} pixels'}
    if tracked.loops is not None:
        values.update(_loops(tracked.loops))
        if tracked.loops.localization is not None:
            values['localization'] = tracked.loops.localization.describe()
    return values


def _loops(loops: LoopState) -> dict[str, object]:
    report = loops.report
    refused = ', '.join(f'{reason} {count}' for reason, count in report.refused.items())
    moved = report.moved * loops.map_frame.metres
    return {'keyframes': len(loops.keyframes), 'loops closed': report.found,
            'loops refused': refused or 'none',
            'drift corrected': f'{moved:.3f}, {math.degrees(report.turned):.2f} degrees'}
